"""From any network to the operations that it runs: one graph for training, one for evaluation."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import UninitializedParameter

from bayesprune.errors import UnsupportedNetworkError
from bayesprune.structure.altered import (
    check_followed,
    check_no_global_hooks,
    drop_gradient_hooks_,
    hint,
)
from bayesprune.structure.copying import Foreign, copy_of
from bayesprune.structure.graph.capture.lent import Watch, memory, shared_memory_copy
from bayesprune.structure.graph.capture.tensors import find_tensor, largest, set_tensor
from bayesprune.structure.graph.capture.tracing import Inputs, place_in_code, traced
from bayesprune.structure.trace import check_plain, evaluating, unmoved

__all__ = ["Captured", "Inputs", "capture", "find_tensor", "set_tensor"]

Rates = dict[bool, dict[str, str]]


@dataclass(frozen=True)
class Captured:
    """A network's copy and the two graphs that say what it does.

    Attributes:
        network: a copy of the user's network; surgery happens in its parameters.
        graphs: training or not → the graph of that mode.
        outputs: training or not → how the network's outputs hang together.
        example: the inputs, two rows of them where there are more.
        rates: training or not → name of a dropout in that graph → the module whose rate it is.
        lent: where the user's own parameters lie, if the copy's lie there too; else empty.
    """

    network: nn.Module
    graphs: dict[bool, fx.GraphModule]
    outputs: dict[bool, Any]
    example: Inputs
    rates: dict[bool, dict[str, str]] = field(default_factory=dict)
    lent: frozenset[int] = frozenset()


def capture(network: nn.Module, example: Tensor | Inputs, lent: bool = False) -> Captured:
    """Capture what a network does, in training and in evaluation.

    Each graph is that of all modules in one mode, as ``network.train(mode)`` puts them; the modes in which
    modules are handed over are found again in the copy.

    Args:
        network: any module whose operations do not depend on the values of its inputs; left alone.
        example: (rows, ...), a batch that it accepts, or a tuple of them, one for each input.
        lent: whether the copy may do without memory for its parameters.

    Returns:
        A copy with its two graphs.

    Raises:
        UnsupportedNetworkError: PyTorch cannot trace the network, and the line is named; or somebody has put
            something on its modules that no copy and no graph can have.
        WouldWrite: running the network changes its parameters, so they cannot be lent.
    """
    inputs = _two_rows(network, example)
    check_no_global_hooks("the analysis")
    check_followed(network, "The analysis")
    twin = drop_gradient_hooks_(shared_memory_copy(network) if lent else copy_of(network))
    places = memory(twin) if lent else set()
    with unmoved(twin):
        with Watch(places) if lent else contextlib.nullcontext(), Foreign(network) as original:
            _check_runs(twin, inputs)
        original.check()
        graphs, outputs, rates = _graphs_of(twin, inputs)
    return Captured(twin, graphs, outputs, inputs, rates, frozenset(places))


def _graphs_of(twin: nn.Module, inputs: Inputs) -> tuple[dict[bool, fx.GraphModule], dict[bool, Any], Rates]:
    """Mode → its graph, how its outputs hang together, and where its rates are from; modes as they were."""
    modes = [(module, module.training) for module in twin.modules()]
    graphs, outputs, rates = {}, {}, {}
    for training in (True, False):
        twin.train(training)
        graphs[training], outputs[training], rates[training] = traced(twin, inputs)
    _check_same(twin, graphs[False], inputs)
    for module, training in modes:
        module.training = training
    return graphs, outputs, rates


def _two_rows(network: nn.Module, example: Tensor | Inputs) -> Inputs:
    """The example as a tuple of two rows each, after a look at what was handed over."""
    check_plain(network, "the analysis")
    inside = getattr(network, "_orig_mod", getattr(network, "module", None))
    wrapped = type(network).__name__ in ("OptimizedModule", "DataParallel", "DistributedDataParallel")
    if wrapped and isinstance(inside, nn.Module):
        name = "_orig_mod" if hasattr(network, "_orig_mod") else "module"
        raise UnsupportedNetworkError(
            f"The network is wrapped in a {type(network).__name__}: hand over network.{name}, and wrap what "
            "comes out."
        )
    lazy = [name for name, p in network.named_parameters() if isinstance(p, UninitializedParameter)]
    if lazy:
        raise UnsupportedNetworkError(
            f"Parameter {lazy[0]!r} has no size yet: run the network once on a batch before it is analysed."
        )
    inputs = example if isinstance(example, tuple) else (example,)
    for number, x in enumerate(inputs):
        if not isinstance(x, Tensor) or x.ndim == 0 or not len(x):
            found = f"of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise UnsupportedNetworkError(
                f"Input {number} of the example is {found}: pass a tensor of (rows, ...) with at least one "
                "row, or a tuple of such, one for each argument of forward."
            )
    if len({len(x) for x in inputs}) > 1:
        raise UnsupportedNetworkError(
            f"The example's inputs have {' and '.join(str(len(x)) for x in inputs)} rows: give each as many."
        )
    # one row would be taken for a constant
    return tuple(x[:2] if len(x) > 1 else torch.cat([x, x]) for x in inputs)


def _check_runs(network: nn.Module, inputs: Inputs) -> None:
    """The network takes the example at all."""
    with evaluating(network):
        try:
            returned = network(*(x.clone() for x in inputs))
        except Exception as problem:  # whatever the user's forward does
            shapes = " and ".join(f"{(1, *x.shape[1:])}" for x in inputs)
            reason = str(problem).partition("\n")[0].rstrip(".")
            raise UnsupportedNetworkError(
                f"The network does not accept rows of shape {shapes}: {reason}{place_in_code(problem)}. Pass "
                "a batch like the ones it will be trained on."
            ) from problem
    if not any(isinstance(leaf, Tensor) for leaf in torch.utils._pytree.tree_leaves(returned)):
        raise UnsupportedNetworkError(
            f"{type(network).__name__} returns no tensor, so there is nothing to keep: let forward return "
            "its outputs."
        )


def _check_same(network: nn.Module, graph: fx.GraphModule, inputs: Inputs) -> None:
    """The graph does what the network does on other values and more rows: nothing of them was baked in."""
    other = tuple(torch.cat([x.roll(1, 0), x[:1]]) for x in inputs)
    results = []
    with evaluating(network), torch.random.fork_rng():
        for module in (graph, network, network):  # twice: a counter would show
            torch.manual_seed(0)
            try:
                leaves = torch.utils._pytree.tree_leaves(module(*(x.clone() for x in other)))
            except Exception as problem:  # whatever the user's forward does with other rows
                reason = str(problem).partition("\n")[0].rstrip(".")
                raise UnsupportedNetworkError(
                    f"{type(network).__name__} runs on {len(inputs[0])} rows, but not on "
                    f"{len(other[0])}: {reason}{place_in_code(problem)}. What it computes for a row must not "
                    "depend on how many there are."
                ) from problem
            results.append([leaf for leaf in leaves if isinstance(leaf, Tensor)])
    pairs = [pair for run in results[1:] for pair in zip(results[0], run, strict=False)]
    for ours, theirs in pairs:
        close = ours.shape == theirs.shape and (
            torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5 * (1 + largest(theirs)), equal_nan=True)
            if ours.numel() and (ours.is_floating_point() or ours.is_complex())
            else torch.equal(ours, theirs)
        )
        if not close:
            raise UnsupportedNetworkError(
                f"What was traced of {type(network).__name__} computes something else on other inputs. Its "
                "forward must depend on its inputs, parameters and buffers alone: not on counters in Python, "
                f"numbers drawn outside of PyTorch, or values read by .item() and .tolist().{hint(network)}"
            )
