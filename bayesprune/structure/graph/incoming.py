"""Incoming: what the single weights of linear maps and convolutions are multiplied by, on given rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from bayesprune.errors import SelectionError
from bayesprune.rows import Inputs
from bayesprune.structure.graph import GraphNetwork
from bayesprune.structure.graph.analysis.weights import kind_of, listed
from bayesprune.structure.graph.readings import attribute, like_of
from bayesprune.structure.graph.rules.call import arguments
from bayesprune.structure.running import evaluating

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution")
ROWS_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Incoming:
    """What one operation multiplies its weight by.

    Attributes:
        weight: its name, as the network lists it.
        values: (groups, samples, fan-in), float64 on the CPU: output unit o of O sums ``values[o * groups //
            O]`` over the fan-in, in the order of ``weight[o].flatten()``. Samples are rows and, of a
            convolution, positions.
    """

    weight: str
    values: Tensor = field(repr=False)


def incoming(network: GraphNetwork, rows: Inputs, only: str | None = None) -> Iterator[list[Incoming]]:
    """Run a network in evaluation, some rows at a time, and keep what its weights are multiplied by.

    Weights of other operations (recurrences, embeddings, transposed convolutions, products of two
    activations), and those that are moved about on their way, are left out.

    Args:
        network: left alone; all gates are open.
        rows: (rows, ...), inputs.
        only: name of the one weight that is asked for.

    Yields:
        For the next rows, one entry a use of a weight, in the order in which the network gets to them.

    Raises:
        SelectionError: values that are not finite; the weight is named.
    """
    graph = network._graphs[False]
    names = listed(network.network)
    places = {}
    for node in graph.graph.nodes:
        name = _weight_of(graph, node, names)
        if name is not None and only in (None, name):
            places[node] = name
    like = like_of(network)
    for batch in rows.split(ROWS_AT_ONCE):
        recorder = _Recorder(graph, places)
        tensors = (batch,) if isinstance(batch, Tensor) else batch.tensors
        inputs = (x.to(like) if x.is_floating_point() else x.to(like.device) for x in tensors)
        with evaluating(network):
            recorder.run(*inputs, None, None)
        for one in recorder.seen:
            if not bool(torch.isfinite(one.values).all()):
                raise SelectionError(
                    f"What {one.weight!r} is multiplied by is not all finite at the {len(rows)} rows given: "
                    "look at the rows and at the network's weights."
                )
        yield recorder.seen


class _Recorder(fx.Interpreter):
    """Runs a graph, and keeps what chosen nodes are handed, as columns beside their weights."""

    def __init__(self, graph: fx.GraphModule, places: dict[fx.Node, str]) -> None:
        super().__init__(graph)
        self.places, self.seen = places, list[Incoming]()

    def run_node(self, n: fx.Node) -> Any:
        if n in self.places:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            if n.op == "call_module":  # a linear map, with the noise that it would have
                kind, given = "linear", {"input": args[0], "weight": args[1]}
            else:
                kind, given = kind_of(n), dict(zip(arguments(n), (*args, *kwargs.values()), strict=True))
            values = _columns(kind, given)
            self.seen.append(Incoming(self.places[n], values.detach().double().cpu()))
        return super().run_node(n)


def _columns(kind: str, given: dict[str, Any]) -> Tensor:
    """(groups, samples, fan-in), of one operation's arguments."""
    x: Tensor = given["input"]
    weight: Tensor = given["weight"]
    if kind == "linear":
        return x.reshape(1, -1, x.shape[-1])
    sizes, groups = weight.shape[2:], given.get("groups", 1)
    dims = len(sizes)
    x = x if x.ndim == 2 + dims else x[None]  # one row without a dimension for rows
    strides = _each(given.get("stride", 1), dims)
    gaps = _each(given.get("dilation", 1), dims)
    x = F.pad(x, _margins(given.get("padding", 0), sizes, gaps))
    for dim, (size, stride, gap) in enumerate(zip(sizes, strides, gaps, strict=True), start=2):
        x = x.unfold(dim, gap * (size - 1) + 1, stride)[..., ::gap]
    # (rows, channels, positions..., kernel...)
    x = x.movedim(1, 1 + dims).flatten(0, dims)  # (samples, channels, kernel...)
    columns: Tensor = x.unflatten(1, (groups, -1)).movedim(1, 0).flatten(2)
    return columns


def _margins(padding: Any, sizes: Sequence[int], gaps: Sequence[int]) -> list[int]:
    """Zeros before and after every dimension, the last one first, as ``F.pad`` takes them."""
    if isinstance(padding, str):
        spans = [gap * (size - 1) if padding == "same" else 0 for size, gap in zip(sizes, gaps, strict=True)]
        pairs = [(span // 2, span - span // 2) for span in spans]
    else:
        pairs = [(one, one) for one in _each(padding, len(sizes))]
    return [zeros for pair in reversed(pairs) for zeros in pair]


def _each(value: Any, dims: int) -> list[int]:
    """One number a dimension, as operations take them: one for all, or each."""
    values = [value] if isinstance(value, int) else list(value)
    return values * dims if len(values) == 1 else values


def _weight_of(graph: fx.GraphModule, node: fx.Node, names: dict[int, str]) -> str | None:
    """The weight of a linear map or ordinary convolution, by the name under which the network lists it."""
    if node.op == "call_module" and str(node.target).startswith("bp_linear_"):
        weight: Any = node.args[1]
    else:
        if kind_of(node) not in ("linear", *CONVOLUTIONS) or arguments(node).get("transposed", False):
            return None
        weight = arguments(node).get("weight")
    if isinstance(weight, fx.Node) and weight.op == "call_module":
        weight = weight.args[0]  # where noise would act
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return None
    return names.get(id(attribute(graph, str(weight.target))))
