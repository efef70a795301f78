"""Noise on a network's weights, inside its graphs."""

from __future__ import annotations

from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor, fx, nn

from bayesprune.structure.graph.analysis.structure import Structure
from bayesprune.structure.graph.analysis.weights import kind_of, listed
from bayesprune.structure.graph.capture.capture import find_tensor
from bayesprune.structure.graph.rules.call import arguments
from bayesprune.structure.graph.rules.gates import Direct


class Noise(Protocol):
    """What perturbs weights while a network runs."""

    def draw(self, name: str, weight: Tensor) -> Tensor:
        """A weight as it is to be used this time: once for every run, wherever it is read."""

    def linear(self, names: tuple[str, str | None], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The outputs of a linear map whose weights differ from row to row."""


class Drawn(Direct):
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


class NoisyLinear(Direct):
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
        if kind_of(node) == "linear" and _one_vector_a_row(structure, training, node):
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
    names = listed(network)
    found: dict[str, list[fx.Node]] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr" and node.users:
            name = names.get(id(find_tensor(network, str(node.target))), "")
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
