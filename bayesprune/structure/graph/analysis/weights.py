"""Which of a network's parameters are weights.

A weight is what a product sums with: the parameters of linear maps, convolutions, matrix products and
recurrences, biases included, and embedding tables, whichever module owns them. Scales and shifts of norms,
positions, class tokens and whatever else is only added or multiplied are no weights, nor are parameters that
a weight is computed from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import fx, nn

from bayesprune.structure.graph.capture.capture import Captured, find_tensor
from bayesprune.structure.graph.rules.call import arguments
from bayesprune.structure.graph.rules.shape import KEEPS, MOVES
from bayesprune.structure.plain.routed import NAME

CONVOLUTIONS = ("convolution", *(f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3)))
NAMED: Mapping[str, tuple[str, ...]] = {
    "linear": ("weight", "bias"),
    "embedding": ("weight",),
    NAME: ("weight", "bias"),
    **{kind: ("weight", "bias") for kind in CONVOLUTIONS},
    **{kind: ("params",) for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
}
"""Operation → its arguments that are weights."""

PRODUCTS = ("addmm", "matmul", "mm", "bmm", "baddbmm", "bilinear", "einsum")
"""Operations any of whose arguments is a weight, if it is a parameter."""

JOINS = ("cat", "concat", "stack", "hstack", "vstack")


def weight_names(captured: Captured) -> frozenset[str]:
    """The parameters that are weights, by the name under which the network lists them.

    Args:
        captured: the network and its graphs.

    Returns:
        The names; one for a tensor that several modules share.
    """
    names, sources = listed(captured.network), set()
    for graph in captured.graphs.values():
        for node in graph.graph.nodes:
            sources |= {str(source.target) for source in _weights_of(node)}
    tensors = (find_tensor(captured.network, name) for name in sources)
    return frozenset(names[id(tensor)] for tensor in tensors if id(tensor) in names)


def listed(network: nn.Module) -> dict[int, str]:
    """Parameter, by identity → the one name that ``named_parameters`` gives it."""
    return {id(parameter): name for name, parameter in network.named_parameters()}


def kind_of(node: fx.Node) -> str:
    """An operation's name without namespace and overload: ``'linear'``; empty for what is none."""
    schema = getattr(node.target, "_schema", None) if node.op == "call_function" else None
    return str(schema.name).removeprefix("aten::") if schema is not None else ""


def _weights_of(node: fx.Node) -> Iterator[fx.Node]:
    """Where the weights of an operation come from; none if it is no product."""
    kind = kind_of(node)
    if kind in NAMED:
        given = arguments(node)
        for name in NAMED[kind]:
            yield from _origins(given.get(name), through_joins=True)
    elif kind in PRODUCTS:
        yield from _origins(node.all_input_nodes, through_joins=False)


def _origins(value: Any, through_joins: bool) -> Iterator[fx.Node]:
    """Parameters that a value consists of, moved about or copied at most; detached, they learn nothing."""
    if isinstance(value, list | tuple):
        for part in value:
            yield from _origins(part, through_joins)
    elif isinstance(value, fx.Node) and value.op == "get_attr":
        yield value
    elif isinstance(value, fx.Node):
        kind = kind_of(value)
        moved = (kind in MOVES and (through_joins or kind not in JOINS)) or (
            kind in KEEPS and not kind.startswith("detach")
        )
        if moved or getattr(value.target, "__name__", "") == "getitem":
            yield from _origins(value.all_input_nodes, through_joins)
