"""Whether a graph does what its network does: nothing of values, rows, chance or counters was baked in."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from bayesprune.errors import UnsupportedNetworkError
from bayesprune.structure.altered import hint
from bayesprune.structure.graph.capture.late_graph import LateGraph
from bayesprune.structure.graph.capture.masks import masks_as_given
from bayesprune.structure.graph.capture.recording import Inputs
from bayesprune.structure.graph.capture.tensors import largest
from bayesprune.structure.graph.capture.tracing import place_in_code
from bayesprune.structure.running import drawing_alike


def check_same(network: nn.Module, graph: fx.GraphModule, inputs: Inputs) -> None:
    """The graph does what the network does in its mode: on other values, and on more rows in evaluation.

    That is, it returns the same, and leaves the same in the buffers.

    All runs draw from one state of PyTorch's generator. Those of Python and NumPy are seen to move, for what
    they choose may seldom show. A graph that was recorded has seen the network run already; where it was
    traced otherwise the network is run twice, so that counters show, and where numbers or generators that
    its modules hold in Python have moved, four times.

    Args:
        network: in the mode of the graph; its buffers are afterwards what they were.
        graph: of one mode.
        inputs: two rows of each.

    Raises:
        UnsupportedNetworkError: they differ, or the network does not run on one row more.
    """
    other = _other_rows(network, inputs)
    before, held = _generators(), _held(network)
    theirs = _run(network, network, other)  # first: its refusal names a line of its own
    _check_drawn(network, before)
    ours = _run(graph, network, other)
    if not (results_alike(ours, theirs) and _again(network, graph, other, theirs, held)):
        raise UnsupportedNetworkError(
            f"What was traced of {type(network).__name__} in {_mode(network)} computes something else on "
            "other inputs. Its forward must depend on its inputs, parameters and buffers alone: not on "
            "counters in Python, numbers drawn outside of PyTorch, or values read by .item() and .tolist()."
            f"{hint(network)}"
        )


def same_at(network: nn.Module, graph: fx.GraphModule, inputs: Inputs) -> bool | None:
    """Whether all that `check_same` asks for is so, at other sizes than the example's too.

    Args:
        network: as there.
        graph: as there.
        inputs: two rows of each, of any sizes.

    Returns:
        None where the network does not run on them.
    """
    other, before, held = _other_rows(network, inputs), _generators(), _held(network)
    try:
        theirs = outputs_of(network, network, other, buffers=True)
    except Exception:  # whatever the user's forward says to sizes that it was not written for
        return None
    if _moved(before):
        return False
    try:
        ours = outputs_of(graph, network, other, buffers=True)
    except Exception:  # numbers that were baked in do not fit any more
        return False
    return results_alike(ours, theirs) and _again(network, graph, other, theirs, held)


def _again(
    network: nn.Module, graph: fx.GraphModule, inputs: Inputs, theirs: list[Tensor], held: dict[Any, Any]
) -> bool:
    """Whether the network does the same again."""
    times = 3 if _held(network) != held else 0 if isinstance(graph, LateGraph) else 1
    return all(results_alike(theirs, _run(network, network, inputs)) for _ in range(times))


def _held(network: nn.Module) -> dict[tuple[int, str], Any]:
    """Numbers, and states of generators, that modules hold in Python."""
    return {
        (id(module), key): _state(value)
        for module in network.modules()
        for key, value in vars(module).items()
        if isinstance(value, HELD)
    }


def _state(value: Any) -> Any:
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    return str(value.get_state()) if isinstance(value, np.random.RandomState) else value


HELD = (int, float, str, random.Random, torch.Generator, np.random.Generator, np.random.RandomState)
"""What a network may count with, or draw from, beside PyTorch's own generator."""


def _other_rows(network: nn.Module, inputs: Inputs) -> Inputs:
    """Other values in every row, and one row more in evaluation."""
    more = int(not network.training)
    return tuple(torch.cat([x.roll(1, 0), x[:more]]) for x in inputs)


def _run(module: nn.Module, network: nn.Module, inputs: Inputs) -> list[Tensor]:
    """What a module returns on more rows than the example's, and what is then in the buffers; a refusal is
    told.
    """
    try:
        return outputs_of(module, network, inputs, buffers=True)
    except Exception as problem:  # whatever the user's forward does with other rows
        reason = str(problem).partition("\n")[0].rstrip(".")
        rows = len(inputs[0])
        raise UnsupportedNetworkError(
            f"{type(network).__name__} does not run on {rows} rows in {_mode(network)}: "
            f"{reason}{place_in_code(problem)}. What it computes for a row must not depend on how many there "
            "are: Write it for any number of rows, an odd one too."
        ) from problem


def outputs_of(module: nn.Module, network: nn.Module, inputs: Inputs, buffers: bool = False) -> list[Tensor]:
    """What a module returns from one state of the generator.

    Args:
        module: the network, or a graph over its parameters.
        network: its buffers are afterwards what they were.
        inputs: left alone.
        buffers: whether what is then in them follows.
    """
    state = {name: tensor.clone() for name, tensor in network.named_buffers()}
    try:
        with torch.no_grad(), drawing_alike(), masks_as_given():
            leaves = tree_leaves(module(*(x.clone() for x in inputs)))
            leaves += [tensor.clone() for tensor in network.buffers()] if buffers else []
    finally:
        for name, tensor in network.named_buffers():
            tensor.copy_(state[name])
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def of_one_form(first: fx.GraphModule, second: fx.GraphModule) -> bool:
    """Whether the graphs of both modes do the same operations: nothing normalises by its batch, and nothing
    is dropped. False too where operations stand in graphs of their own, which are not looked into.
    """
    if any(isinstance(part, fx.GraphModule) for graph in (first, second) for part in graph.children()):
        return False
    return [*map(_operation, first.graph.nodes)] == [*map(_operation, second.graph.nodes)]


def _operation(node: fx.Node) -> tuple[str, ...]:
    """What a node does, with the nodes that it reads by name."""
    args = node.args
    if node.target is torch.ops.aten.dropout.default and args[1] == 0:
        args = args[:2]  # whether it is training makes no difference
    return node.op, str(node.target), str(args), str(node.kwargs)


def results_alike(first: list[Tensor], second: list[Tensor]) -> bool:
    """Whether two lists of outputs, of any types, are equal up to rounding."""
    return len(first) == len(second) and all(_close(a, b) for a, b in zip(first, second, strict=True))


def _close(ours: Tensor, theirs: Tensor) -> bool:
    if ours.shape != theirs.shape:
        return False
    if not ours.numel() or not (ours.is_floating_point() or ours.is_complex()):
        return torch.equal(ours, theirs)
    return torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5 * (1 + largest(theirs)), equal_nan=True)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Afterwards the generators of Python and NumPy are where they were: forward was run for us."""
    state = _generators()
    try:
        yield
    finally:
        random.setstate(state["random"])
        np.random.set_state(state["numpy.random"])


def _generators() -> dict[str, Any]:
    return {"random": random.getstate(), "numpy.random": np.random.get_state()}


def _moved(before: dict[str, Any]) -> list[str]:
    """Which of them somebody has drawn from."""
    now = _generators()
    return [name for name in now if not all(map(np.array_equal, before[name], now[name]))]


def _check_drawn(network: nn.Module, before: dict[str, Any]) -> None:
    """Nobody has drawn from the generators of Python and NumPy."""
    moved = _moved(before)
    if moved:
        raise UnsupportedNetworkError(
            f"The forward of {type(network).__name__} draws from {' and '.join(moved)} in {_mode(network)}, "
            "and its graph would have that one draw for good. Draw with PyTorch, as in "
            "x * torch.rand(()).lt(0.9), or outside of forward."
        )


def _mode(network: nn.Module) -> str:
    return "training" if network.training else "evaluation"
