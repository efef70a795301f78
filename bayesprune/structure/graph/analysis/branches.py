"""Branches: the parts of a graph that only one operand of a sum needs, with a shortcut around them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from bayesprune.structure.graph.capture.capture import find_tensor
from bayesprune.structure.graph.rules.call import argument_node, arguments
from bayesprune.structure.graph.rules.shape import MOVES


@dataclass(frozen=True)
class Branch:
    """A section in one graph, by the names of its nodes.

    Attributes:
        add: the sum that it ends in.
        argument: name of the sum's argument that it is.
        last: the value that it gives to the sum.
        inside: all nodes that nothing else needs.
    """

    add: str
    argument: str
    last: str
    inside: frozenset[str]


@dataclass(frozen=True)
class Section:
    """A nonlinear section of a residual connection: y = shortcut(x) + section(x).

    Attributes:
        unit: its number in the group of sections.
        name: the module that holds it.
        tensors: names of the parameters and buffers that only it uses.
        branches: training or not → where it is in that graph.
    """

    unit: int
    name: str
    tensors: frozenset[str]
    branches: dict[bool, Branch]


def find_branches(
    graph: fx.GraphModule, network: nn.Module, sizes: Mapping[fx.Node, torch.Size]
) -> dict[frozenset[str], tuple[Branch, frozenset[str]]]:
    """Every section of one graph.

    Args:
        graph: of a network.
        network: whose parameters it uses.
        sizes: node → shape of its value.

    Returns:
        Names of the parameters that only it uses → the section, and names of all tensors that only it uses.
    """
    found: dict[frozenset[str], tuple[Branch, frozenset[str]]] = {}
    order = {node: number for number, node in enumerate(graph.graph.nodes)}
    idle = set(order) - _before({n for n in order if n.op == "output"}) - {next(reversed(order))}
    constant = _of_parameters(order)
    uses = Counter(id(t) for node in order if (t := _tensor(network, node)) is not None)
    for add in order:
        for argument in _operands(add):
            last, other = argument_node(add, argument), other_operand(add, argument)
            if last is None or other is None or len(last.users) > 1 or sizes.get(other) != sizes[add]:
                continue
            inside = _exclusive(last, order, idle)
            if any(_changed(node) not in inside for node in inside & idle):
                continue  # something else is written into
            own = _own_tensors(network, inside, uses)
            parameters = frozenset(n for n in own if isinstance(find_tensor(network, n), nn.Parameter))
            if not parameters:
                continue
            if not _linear_ends(last, sizes, constant) <= inside:
                continue  # a linear path leads through it: it is (with) the shortcut
            if not (_linear_ends(other, sizes, constant) - inside) & _before(inside):
                continue  # nothing leads around it
            inside |= _side_effects(network, order, own)
            own |= _own_tensors(network, inside, uses)
            branch = Branch(add.name, argument, last.name, frozenset(n.name for n in inside))
            found[parameters] = branch, frozenset(own)
    return found


def _operands(node: fx.Node) -> tuple[str, ...]:
    """The arguments of a sum whose removal leaves the other one as it is."""
    name = _operation(node)
    if name not in ("add", "sub"):
        return ()
    plain = arguments(node).get("alpha", 1) == 1 and name == "add"
    return ("self", "other") if plain else ("other",)


def other_operand(add: fx.Node, argument: str) -> fx.Node | None:
    """The operand of a sum that is not the named one; None where it is a number."""
    return argument_node(add, "other" if argument == "self" else "self")


def _operation(node: fx.Node) -> str:
    if node.op != "call_function" or not hasattr(node.target, "_schema"):
        return ""
    return str(node.target._schema.name).removeprefix("aten::").rstrip("_")


def _tensor(network: nn.Module, node: fx.Node) -> Tensor | None:
    return find_tensor(network, str(node.target)) if node.op == "get_attr" else None


def _exclusive(last: fx.Node, order: dict[fx.Node, int], idle: set[fx.Node]) -> set[fx.Node]:
    """What only this operand needs, and what is written into that."""
    inside, waiting = {last}, set(last.all_input_nodes)
    while waiting:
        node = max(waiting, key=order.__getitem__)
        waiting.remove(node)
        if node.op != "placeholder" and all(user in inside or user in idle for user in node.users):
            inside.add(node)
            waiting |= set(node.all_input_nodes)
    for node in order:  # in the order in which they run
        if node in idle and node not in inside and any(n in inside for n in node.all_input_nodes):
            inside.add(node)
    return inside


def _changed(node: fx.Node) -> fx.Node:
    """The value that an operation writes into, through views; itself where it writes into none."""
    while isinstance(node.target, torch._ops.OpOverload) and node.args and isinstance(node.args[0], fx.Node):
        if not node.target._schema.is_mutable and _operation(node) not in MOVES:
            break
        node = node.args[0]
    return node


def _own_tensors(network: nn.Module, inside: set[fx.Node], uses: Counter[int]) -> set[str]:
    """Tensors that are used nowhere else."""
    named = [(str(n.target), t) for n in inside if (t := _tensor(network, n)) is not None]
    here = Counter(id(t) for _, t in named)
    return {name for name, t in named if here[id(t)] == uses[id(t)]}


def _side_effects(network: nn.Module, order: dict[fx.Node, int], own: set[str]) -> set[fx.Node]:
    """Counters that modules of the section keep, and what moves them."""
    modules = {name.rpartition(".")[0] for name in own}
    found: set[fx.Node] = set()
    for node in order:
        if node.users or node.op != "call_function" or not node.all_input_nodes:
            continue
        sources = [n for n in node.all_input_nodes if _tensor(network, n) is not None]
        if len(sources) == len(node.all_input_nodes) and all(
            str(n.target).rpartition(".")[0] in modules and not any(user.users for user in n.users)
            for n in sources
        ):
            found |= {node, *sources}
    return found


def _before(inside: set[fx.Node]) -> set[fx.Node]:
    """All that a section depends on."""
    seen: set[fx.Node] = set()
    waiting = {n for node in inside for n in node.all_input_nodes if n not in inside}
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting |= set(node.all_input_nodes)
    return seen


def _linear_ends(node: fx.Node, sizes: Mapping[fx.Node, torch.Size], constant: set[fx.Node]) -> set[fx.Node]:
    """A value, and all values from which a path of linear operations leads to it."""
    seen: set[fx.Node] = set()
    waiting = {node}
    while waiting:
        value = waiting.pop()
        if value.op == "get_attr" or value in seen or value not in sizes:
            continue
        seen.add(value)
        name = _operation(value)
        if name in ("mul", "div", "matmul", "mm", "bmm"):
            factors = [n for n in value.all_input_nodes if n not in constant]
            waiting |= set(factors) if len(factors) == 1 else set()
        elif name in LINEAR or name in MOVES or _is_getitem(value):
            waiting |= set(value.all_input_nodes)
    return seen


def _of_parameters(order: Iterable[fx.Node]) -> set[fx.Node]:
    """What is computed from the network's own tensors alone: a weight, perhaps turned or spread."""
    found: set[fx.Node] = set()
    for node in order:  # as they run, so that what a node reads comes before it
        sources = node.all_input_nodes
        if node.op == "get_attr" or (sources and found.issuperset(sources)):
            found.add(node)
    return found


def _is_getitem(node: fx.Node) -> bool:
    return getattr(node.target, "__name__", "") == "getitem"


LINEAR = {"linear", "addmm", "conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d",
          "conv_transpose2d", "conv_transpose3d", "batch_norm", "add", "sub", "neg", "dropout", "mean", "sum",
          "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
          "adaptive_avg_pool3d", "upsample_nearest2d", "upsample_bilinear2d", "clone", "to", "_to_copy",
          "detach", "alias"}  # fmt: skip
"""Operations that are linear, or affine, in what flows through them."""
