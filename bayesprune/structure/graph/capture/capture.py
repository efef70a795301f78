"""From any network to the operations that it runs: one graph for training, one for evaluation."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.nn.parameter import UninitializedParameter

from bayesprune.errors import DataError, UnsupportedNetworkError
from bayesprune.rows.call import Call, CallForm, call_of
from bayesprune.rows.nested import Leaf, taken_apart
from bayesprune.structure.altered import (
    check_followed,
    check_no_global_hooks,
    drop_gradient_hooks_,
)
from bayesprune.structure.copying import Foreign, copy_of
from bayesprune.structure.graph.capture.called import Calls
from bayesprune.structure.graph.capture.flat import flat
from bayesprune.structure.graph.capture.lent import Watch, memory, shared_memory_copy
from bayesprune.structure.graph.capture.recording import Inputs
from bayesprune.structure.graph.capture.same import generators_kept
from bayesprune.structure.graph.capture.sizes import check_same_far_away, free_sizes
from bayesprune.structure.graph.capture.tensors import find_tensor, set_tensor
from bayesprune.structure.graph.capture.tracing import Free, place_in_code, traced
from bayesprune.structure.plain.operators import name_of
from bayesprune.structure.running import check_plain, evaluating, unmoved

__all__ = ["Captured", "Inputs", "capture", "find_tensor", "set_tensor"]

Rates = dict[bool, dict[str, str]]


@dataclass(frozen=True)
class Captured:
    """A network's copy and the two graphs that say what it does.

    Attributes:
        network: a copy of the user's network; surgery happens in its parameters.
        graphs: training or not → the graph of that mode; it takes the example's tensors one by one.
        outputs: training or not → tree of the network's outputs, see ``bayesprune.rows.nested``.
        example: the tensors of the inputs, two rows of them where there are more.
        form: how the network itself is called with them, and which sizes they must have.
        rates: training or not → name of a dropout in that graph → the module whose rate it is.
        calls: training or not → what each module ran in that graph.
        lent: where the user's own parameters lie, if the copy's lie there too; else empty.
        dtype: of the network's numbers when it was captured; inputs of that type follow them.
        returned: what the network returned for the example in evaluation, where that is a tensor.
    """

    network: nn.Module
    graphs: dict[bool, fx.GraphModule]
    outputs: dict[bool, Any]
    example: Inputs
    form: CallForm
    rates: dict[bool, dict[str, str]] = field(default_factory=dict)
    calls: dict[bool, Calls] = field(default_factory=dict)
    lent: frozenset[int] = frozenset()
    dtype: torch.dtype = torch.float32
    returned: Tensor | None = None


def capture(network: nn.Module, example: Any, lent: bool = False) -> Captured:
    """Capture what a network does, in training and in evaluation.

    Each graph is that of all modules in one mode, as ``network.train(mode)`` puts them; the modes in which
    modules are handed over are found again in the copy.

    Args:
        network: any module whose operations do not depend on the values of its inputs; left alone.
        example: (rows, ...), a batch that it accepts: a tensor; a tuple, one for each argument of
            ``forward``; or a dict of arguments by name; see ``bp.gate``.
        lent: whether the copy may do without memory for its parameters.

    Returns:
        A copy with its two graphs.

    Raises:
        UnsupportedNetworkError: PyTorch cannot trace the network, and the line is named; or somebody has put
            something on its modules that no copy and no graph can have.
        WouldWrite: running the network changes its parameters, so they cannot be lent.
    """
    call = _two_rows(network, example)
    check_no_global_hooks("the analysis")
    check_followed(network, "The analysis")
    twin = drop_gradient_hooks_(shared_memory_copy(network) if lent else copy_of(network))
    places = memory(twin) if lent else set()
    with unmoved(twin), generators_kept():
        with _lending(places), Foreign(network) as original:
            returned = _check_runs(twin, call)
        original.check()
        with flat(twin, call.form, returned) as trees:
            (graphs, outputs, rates, calls, _), sizes = _with_sizes(twin, call.tensors, trees, places)
    form = replace(call.form, sizes=sizes)
    dtype = next((p.dtype for p in twin.parameters() if p.is_floating_point()), torch.float32)
    known = returned if isinstance(returned, Tensor) else None
    return Captured(twin, graphs, outputs, call.tensors, form, rates, calls, frozenset(places), dtype, known)


MOST_OPERATIONS = 600
"""Operations up to which a graph is traced with symbols: PyTorch asks conditions on sizes of all that comes
after, and takes minutes where windows are cut out of images. Sizes of longer ones are fixed, and others are
refused by name."""

Graphs = tuple[dict[bool, fx.GraphModule], dict[bool, Any], Rates, dict[bool, Calls], set[bool]]


def _with_sizes(
    twin: nn.Module, inputs: Inputs, trees: list[Any], places: set[int]
) -> tuple[Graphs, tuple[tuple[int | None, ...], ...]]:
    """The graphs, and for every input the sizes that it must have; None where it may have any.

    Numbers stand in graphs as they were recorded. Where those were sizes, so that a graph does something else
    at another one, it is traced again with symbols in their place, if that can be saved; what is then baked
    in still is fixed.
    """
    graphs = _graphs_of(twin, inputs, trees, places)
    with _lending(places):
        sizes = free_sizes(twin, graphs[0], inputs, graphs[4])
    if sizes.baked and all(_operations(graph) <= MOST_OPERATIONS for graph in graphs[0].values()):
        with contextlib.suppress(UnsupportedNetworkError):
            others = _graphs_of(twin, inputs, trees, places, frozenset(chain(*sizes.baked)))
            with _lending(places):
                more = free_sizes(twin, others[0], inputs, others[4])
            if set(more.free) > set(sizes.free) and all(map(_is_written, others[0].values())):
                graphs, sizes = others, more
    free = set(chain(*sizes.free))
    return graphs, tuple(
        tuple(None if (number, dim) in free else x.shape[dim] for dim in range(1, x.ndim))
        for number, x in enumerate(inputs)
    )


def _operations(graph: fx.GraphModule) -> int:
    return sum(node.op == "call_function" for node in graph.graph.nodes)


def _is_written(graph: fx.GraphModule) -> bool:
    """Whether the arithmetic on sizes in a graph can be saved."""
    calls = (node.target for node in graph.graph.nodes if node.op == "call_function")
    return all(isinstance(call, OpOverload) or name_of(call) is not None for call in calls)


def _lending(places: set[int]) -> contextlib.AbstractContextManager[Any]:
    """Inside, nothing is written into parameters that are only lent."""
    return Watch(places) if places else contextlib.nullcontext()


def _graphs_of(
    twin: nn.Module, inputs: Inputs, trees: list[Any], places: set[int], free: Free = frozenset()
) -> Graphs:
    """Mode → its graph, the tree of its outputs, where its rates are from, what its modules ran; and modes in
    which all sizes were others when it was compared. The network's modes are as they were.

    ``trees`` holds that of the last call where the network is called with its tensors one by one.
    """
    modes = [(module, module.training) for module in twin.modules()]
    graphs, outputs, rates, calls = {}, {}, {}, {}
    far_away, before = set(), None
    try:
        for training in (True, False):
            twin.train(training)
            graphs[training], spec, rates[training], calls[training] = traced(twin, inputs, free, before)
            before = graphs[training], spec, calls[training]
            leaves = torch.utils._pytree.tree_unflatten(map(Leaf, range(spec.num_leaves)), spec)
            outputs[training] = trees[-1] if trees else leaves
            with _lending(places):
                if check_same_far_away(twin, graphs[training], inputs):
                    far_away.add(training)
    finally:
        for module, training in modes:
            module.training = training
    return graphs, outputs, rates, calls, far_away


def _two_rows(network: nn.Module, example: Any) -> Call:
    """The example, two rows of it, after a look at what was handed over."""
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
    _check_dense(network)
    try:
        call = call_of(network, example)
    except DataError as problem:
        raise UnsupportedNetworkError(str(problem)) from None
    if not len(call):
        raise UnsupportedNetworkError(f"The example has no rows ({call.told()}): give at least one.")
    # one row would be taken for a constant
    return call[:2] if len(call) > 1 else call.twice()


def _check_dense(network: nn.Module) -> None:
    """No tensor of the network is sparse: neither graphs nor files can have those."""
    held = (*network.named_parameters(), *network.named_buffers())
    sparse = [name for name, tensor in held if tensor.layout is not torch.strided]
    if sparse:
        raise UnsupportedNetworkError(
            f"{sparse[0]!r} is sparse: keep its indices and values as buffers. Its product with h is "
            "torch.zeros_like(h).index_add(0, indices[0], values[:, None] * h[indices[1]]), if it is square."
        )


def _check_runs(network: nn.Module, call: Call) -> Any:
    """What the network returns, where it takes the example at all."""
    with evaluating(network):
        try:
            returned = call.clone().on(network)
        except Exception as problem:  # whatever the user's forward does
            shapes = " and ".join(f"{(1, *x.shape[1:])}" for x in call.tensors)
            reason = str(problem).partition("\n")[0].rstrip(".")
            raise UnsupportedNetworkError(
                f"The network does not accept rows of shape {shapes}: {reason}{place_in_code(problem)}. Pass "
                "a batch like the ones it will be trained on."
            ) from problem
    if not taken_apart(returned)[0]:
        raise UnsupportedNetworkError(
            f"{type(network).__name__} returns no tensor, so there is nothing to keep: let forward return "
            "its outputs."
        )
    return returned
