"""Branches: the parts of a graph that only one operand of a sum needs, with a shortcut around them."""

from __future__ import annotations

import functools
import operator
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
    reach, counters = _Reach(order, sizes), _counters(network, order)
    uses = Counter(id(t) for node in order if (t := _tensor(network, node)) is not None)
    for add in order:
        for argument in _operands(add):
            last, other = argument_node(add, argument), other_operand(add, argument)
            if last is None or other is None or len(last.users) > 1 or sizes.get(other) != sizes[add]:
                continue
            inside = _exclusive(last, order, idle)
            places = reach.of(inside)
            if any(_changed(node) not in inside for node in inside & idle):
                continue  # something else is written into
            own = _own_tensors(network, inside, uses)
            parameters = frozenset(n for n in own if isinstance(find_tensor(network, n), nn.Parameter))
            if not parameters:
                continue
            if reach.linear[last] & ~places:
                continue  # a linear path leads through it: it is (with) the shortcut
            if not reach.linear[other] & ~places & reach.before(inside):
                continue  # nothing leads around it
            inside |= _side_effects(counters, own)
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
    written = [user for node in inside for user in node.users if user in idle and user not in inside]
    while written:
        node = written.pop()
        if node not in inside:
            inside.add(node)
            written += [user for user in node.users if user in idle]
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


Counters = dict[str, list[tuple[set[fx.Node], set[str]]]]
"""Module → what counts its calls: the operation with what it reads, and the modules of that."""


def _counters(network: nn.Module, order: Iterable[fx.Node]) -> Counters:
    """Counters that modules keep, and what moves them: operations on their tensors that nothing reads."""
    found: Counters = {}
    for node in order:
        sources = node.all_input_nodes
        if node.users or node.op != "call_function" or not sources:
            continue
        if all(_tensor(network, n) is not None and not any(user.users for user in n.users) for n in sources):
            modules = {str(n.target).rpartition(".")[0] for n in sources}
            for module in modules:
                found.setdefault(module, []).append(({node, *sources}, modules))
    return found


def _side_effects(counters: Counters, own: set[str]) -> set[fx.Node]:
    """What counts the calls of the section's modules."""
    modules = {name.rpartition(".")[0] for name in own}
    here = [counted for module in modules for counted in counters.get(module, ())]
    return {node for nodes, of in here if of <= modules for node in nodes}


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


class _Reach:
    """What leads to every value of a graph, as sets of places in the order of its nodes, bit by bit.

    Attributes:
        linear: value → itself, and the values from which a path of linear operations leads to it.
    """

    def __init__(self, order: Mapping[fx.Node, int], sizes: Mapping[fx.Node, torch.Size]) -> None:
        self.order, self.linear, self._before = order, dict[fx.Node, int](), dict[fx.Node, int]()
        constant = _of_parameters(order)
        for node in order:  # as they run, so that what a node reads comes before it
            sources = node.all_input_nodes
            self._before[node] = _all_of(self._before[n] | 1 << order[n] for n in sources)
            known = node.op != "get_attr" and node in sizes
            ends = _all_of(self.linear[n] for n in _linear_sources(node, constant)) if known else 0
            self.linear[node] = (1 << order[node] | ends) if known else 0

    def of(self, nodes: Iterable[fx.Node]) -> int:
        """Their places."""
        return _all_of(1 << self.order[node] for node in nodes)

    def before(self, inside: set[fx.Node]) -> int:
        """All that a section depends on."""
        sources = {n for node in inside for n in node.all_input_nodes if n not in inside}
        return _all_of(self._before[n] | 1 << self.order[n] for n in sources)


def _all_of(places: Iterable[int]) -> int:
    return functools.reduce(operator.or_, places, 0)


def _linear_sources(value: fx.Node, constant: set[fx.Node]) -> list[fx.Node]:
    """What a value is a linear, or affine, function of."""
    name = _operation(value)
    if name in ("mul", "div", "matmul", "mm", "bmm"):
        factors = [n for n in value.all_input_nodes if n not in constant]
        return factors if len(factors) == 1 else []
    linear = name in LINEAR or name in MOVES or _is_getitem(value)
    return value.all_input_nodes if linear else []


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
