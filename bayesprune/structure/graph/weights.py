"""Which of a network's parameters are weights, and how noise on them gets into its graphs.

A weight is what a product sums with: the parameters of linear maps, convolutions, matrix products and
recurrences, biases included, and embedding tables, whichever module owns them. Scales and shifts of norms,
positions, class tokens and whatever else is only added or multiplied are no weights, nor are parameters that
a weight is computed from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor, fx, nn

from bayesprune.structure.graph.analyse import Structure
from bayesprune.structure.graph.call import arguments
from bayesprune.structure.graph.capture import Captured, find_tensor
from bayesprune.structure.graph.movement import KEEPS, MOVES

CONVOLUTIONS = ("convolution", *(f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3)))
NAMED: Mapping[str, tuple[str, ...]] = {
    "linear": ("weight", "bias"),
    "embedding": ("weight",),
    **{kind: ("weight", "bias") for kind in CONVOLUTIONS},
    **{kind: ("params",) for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
}
"""Operation → its arguments that are weights."""

PRODUCTS = ("addmm", "matmul", "mm", "bmm", "baddbmm", "bilinear", "einsum")
"""Operations any of whose arguments is a weight, if it is a parameter."""

JOINS = ("cat", "concat", "stack", "hstack", "vstack")


class Noise(Protocol):
    """What perturbs weights while a network runs."""

    def draw(self, name: str, weight: Tensor) -> Tensor:
        """A weight as it is to be used this time: once for every run, wherever it is read."""

    def linear(self, names: tuple[str, str | None], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The outputs of a linear map whose weights differ from row to row."""


class Drawn(nn.Module):
    """A weight's place in a graph: as it is, or as noise makes it.

    Args:
        name: of the weight.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, weight: Tensor, noise: Noise | None) -> Tensor:
        """Perturb, where there is noise."""
        return weight if noise is None else noise.draw(self.name, weight)


class NoisyLinear(nn.Module):
    """A linear map of one vector a row, whose weights nothing else reads: its noise may act on the outputs.

    Args:
        weight: name of its weight.
        bias: name of its bias, or None.
    """

    def __init__(self, weight: str, bias: str | None) -> None:
        super().__init__()
        self.names = (weight, bias)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, noise: Noise | None) -> Tensor:
        """y = x Wᵀ + b."""
        return F.linear(x, weight, bias) if noise is None else noise.linear(self.names, x, weight, bias)


def weight_names(captured: Captured) -> frozenset[str]:
    """The parameters that are weights, by the name under which the network lists them.

    Args:
        captured: the network and its graphs.

    Returns:
        The names; one for a tensor that several modules share.
    """
    listed, sources = _listed(captured.network), set()
    for graph in captured.graphs.values():
        for node in graph.graph.nodes:
            sources |= {str(source.target) for source in _weights_of(node)}
    tensors = (find_tensor(captured.network, name) for name in sources)
    return frozenset(listed[id(tensor)] for tensor in tensors if id(tensor) in listed)


def insert_noise_(
    structure: Structure, graph: fx.GraphModule, training: bool, weights: frozenset[str]
) -> None:
    """Let a graph take noise on its weights as a last input.

    A linear map gets its noise at the outputs, as if weights were drawn for every row, which is exact and of
    low variance (Kingma, Salimans & Welling 2015, the local reparameterisation); but only where it maps one
    vector a row, and nothing else reads its weights. All others are drawn once for all rows, and a shared one
    once for all its readers.

    Args:
        structure: of the whole network.
        graph: of one mode, adapted and gated; changed in place.
        training: which mode.
        weights: what ``weight_names`` gave.
    """
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    with graph.graph.inserting_after(last):
        noise = graph.graph.placeholder("noise", default_value=None)
    readers = _sources(structure.captured.network, graph, weights)
    for node in list(graph.graph.nodes):
        if _kind(node) == "linear" and _one_vector_a_row(structure, training, node):
            _insert_linear_(graph, node, noise, readers)
    order = {node: position for position, node in enumerate(graph.graph.nodes)}
    for number, (name, nodes) in enumerate(readers.items()):
        graph.add_submodule(f"bp_weight_{number}", Drawn(name))
        with graph.graph.inserting_after(max(nodes[0], noise, key=order.__getitem__)):
            drawn = graph.graph.call_module(f"bp_weight_{number}", (nodes[0], noise))
        for node in nodes:
            for user in [user for user in node.users if user is not drawn]:
                user.replace_input_with(node, drawn)
    graph.graph.lint()
    graph.recompile()


def _sources(network: nn.Module, graph: fx.GraphModule, weights: frozenset[str]) -> dict[str, list[fx.Node]]:
    """Weight → where a graph takes it from the network; several places where modules share it."""
    listed = _listed(network)
    found: dict[str, list[fx.Node]] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr" and node.users:
            name = listed.get(id(find_tensor(network, str(node.target))), "")
            if name in weights:
                found.setdefault(name, []).append(node)
    return found


def _insert_linear_(
    graph: fx.GraphModule, node: fx.Node, noise: fx.Node, readers: dict[str, list[fx.Node]]
) -> None:
    """Noise at the outputs of one linear map, if nothing else reads its weights, which leave ``readers``."""
    alone = {nodes[0]: name for name, nodes in readers.items() if len(nodes) == 1}
    given = arguments(node)
    weight, bias = given["weight"], given.get("bias")
    parts = [weight] if bias is None else [weight, bias]
    if not all(part in alone and list(part.users) == [node] for part in parts):
        return
    name = f"bp_linear_{node.name}"
    graph.add_submodule(name, NoisyLinear(alone[weight], None if bias is None else alone[bias]))
    with graph.graph.inserting_before(node):
        new = graph.graph.call_module(name, (given["input"], weight, bias, noise))
    node.replace_all_uses_with(new)
    graph.graph.erase_node(node)
    for part in parts:
        del readers[alone[part]]


def _one_vector_a_row(structure: Structure, training: bool, node: fx.Node) -> bool:
    """Whether the dimensions of a linear map's input are the rows, and what it sums over."""
    found = structure.findings[training]
    original = next((n for n in structure.captured.graphs[training].graph.nodes if n.name == node.name), None)
    source: Any = arguments(original).get("input") if original is not None else None
    return len(found.sizes.get(source, ())) == 2 and found.rows.get(source.name) == (0, 1, 1)


def _listed(network: nn.Module) -> dict[int, str]:
    """Parameter, by identity → the one name that ``named_parameters`` gives it."""
    return {id(parameter): name for name, parameter in network.named_parameters()}


def _kind(node: fx.Node) -> str:
    schema = getattr(node.target, "_schema", None) if node.op == "call_function" else None
    return str(schema.name).removeprefix("aten::") if schema is not None else ""


def _weights_of(node: fx.Node) -> Iterator[fx.Node]:
    """Where the weights of an operation come from; none if it is no product."""
    kind = _kind(node)
    if kind in NAMED:
        given = arguments(node)
        for name in NAMED[kind]:
            yield from _origins(given.get(name), through_joins=True)
    elif kind in PRODUCTS:
        yield from _origins(node.all_input_nodes, through_joins=False)


def _origins(value: Any, through_joins: bool) -> Iterator[fx.Node]:
    """Parameters that a value consists of, moved about or copied at most."""
    if isinstance(value, list | tuple):
        for part in value:
            yield from _origins(part, through_joins)
    elif isinstance(value, fx.Node) and value.op == "get_attr":
        yield value
    elif isinstance(value, fx.Node):
        kind = _kind(value)
        moved = (kind in MOVES and (through_joins or kind not in JOINS)) or kind in KEEPS
        if moved or getattr(value.target, "__name__", "") == "getitem":
            yield from _origins(value.all_input_nodes, through_joins)
