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
from bayesprune.structure.graph.capture.masks import masks_as_given
from bayesprune.structure.graph.capture.recording import Inputs
from bayesprune.structure.graph.capture.tensors import largest
from bayesprune.structure.graph.capture.tracing import place_in_code
from bayesprune.structure.running import drawing_alike


def check_same(network: nn.Module, graph: fx.GraphModule, inputs: Inputs) -> None:
    """The graph does what the network does in its mode: on other values, and on more rows in evaluation.

    That is, it returns the same, and leaves the same in the buffers.

    All runs draw from one state of PyTorch's generator. The network is run twice, so that counters show, and
    draws from a generator of its own. Those of Python and NumPy are seen to move, for what they choose may
    seldom show.

    Args:
        network: in the mode of the graph; its buffers are afterwards what they were.
        graph: of one mode.
        inputs: two rows of each.

    Raises:
        UnsupportedNetworkError: they differ, or the network does not run on one row more.
    """
    more = int(not network.training)
    other = tuple(torch.cat([x.roll(1, 0), x[:more]]) for x in inputs)
    ours, before = _run(graph, network, other), _generators()
    theirs = _run(network, network, other)
    _check_drawn(network, before)
    again = _run(network, network, other)
    if not (results_alike(ours, theirs) and results_alike(theirs, again)):
        raise UnsupportedNetworkError(
            f"What was traced of {type(network).__name__} in {_mode(network)} computes something else on "
            "other inputs. Its forward must depend on its inputs, parameters and buffers alone: not on "
            "counters in Python, numbers drawn outside of PyTorch, or values read by .item() and .tolist()."
            f"{hint(network)}"
        )


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
            "are."
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


def _check_drawn(network: nn.Module, before: dict[str, Any]) -> None:
    """Nobody has drawn from the generators of Python and NumPy."""
    now = _generators()
    moved = [name for name in now if not all(map(np.array_equal, before[name], now[name]))]
    if moved:
        raise UnsupportedNetworkError(
            f"The forward of {type(network).__name__} draws from {' and '.join(moved)} in {_mode(network)}, "
            "and its graph would have that one draw for good. Draw with PyTorch, as in "
            "x * torch.rand(()).lt(0.9), or outside of forward."
        )


def _mode(network: nn.Module) -> str:
    return "training" if network.training else "evaluation"
