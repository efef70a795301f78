"""Graphs of training and of evaluation that are one but for what the mode itself says."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from bayesprune.structure.graph.capture.tensors import find_tensor

MODES = frozenset({"train", "training", "dropout_p", "dropout"})
"""Arguments by which operations are told the mode."""


@dataclass
class Twins:
    """Which node of evaluation is which one of training.

    Attributes:
        of: node of training → the node of evaluation that does the same.
        told: nodes of training that are told the mode, and what they compute depends on.
    """

    of: dict[fx.Node, fx.Node] = field(default_factory=dict)
    told: set[fx.Node] = field(default_factory=set)


def twins(training: fx.GraphModule, evaluation: fx.GraphModule, rows: int = 0) -> Twins | None:
    """Match two graphs, operation by operation.

    Args:
        training: a graph, without what nobody reads; it may count calls beside what it computes.
        evaluation: another one.
        rows: of the example, where numbers of rows still stand in ``evaluation`` as they were recorded.

    Returns:
        The pairs; None where the graphs differ by more than arguments that say the mode.
    """
    found = Twins()
    counts = _counting(training.graph)
    ours = iter(node for node in training.graph.nodes if node not in counts)
    for twin in evaluation.graph.nodes:
        node = next((n for n in ours if not rows or rows_of(n) is None), None)
        if node is None or not _match(node, twin, rows, found):
            return None
        if node.op == "get_attr" and not _holds_the_same(training, evaluation, str(node.target)):
            return None
        found.of[node] = twin
    return None if any(not rows or rows_of(n) is None for n in ours) else found


def rows_of(node: fx.Node) -> int | None:
    """How often the number of rows a node of a recorded graph is; None where it is something else."""
    if node.target is torch.ops.aten.sym_size.int:
        return 1
    if node.target is operator.mul and isinstance(node.args[0], fx.Node):
        return int(str(node.args[1])) if rows_of(node.args[0]) == 1 else None
    return None


def _match(node: fx.Node, twin: fx.Node, rows: int, found: Twins) -> bool:
    """Whether two nodes do the same, to the same."""
    if node.op != twin.op or node.target != twin.target:
        return False
    (ours, told), (theirs, told_twin) = _told_apart(node), _told_apart(twin)
    made_of_told = not found.told.isdisjoint(node.all_input_nodes) and not _of_sizes(node)
    if told != told_twin or made_of_told:
        found.told.add(node)
    return _alike(ours, theirs, rows, found)


def _of_sizes(node: fx.Node) -> bool:
    """Whether an operation takes from what it reads no more than the size and the type."""
    name = str(getattr(node.target, "__name__", "")).partition(".")[0]
    return name in OF_SIZES


OF_SIZES = {"new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like"}


def _told_apart(node: fx.Node) -> tuple[tuple[Any, ...], list[Any]]:
    """Positional and named arguments of a node without those that say the mode; and those."""
    args, kwargs, told = list(node.args), dict(node.kwargs), []
    if isinstance(node.target, OpOverload) and node.target.namespace == "aten":
        for place, argument in enumerate(node.target._schema.arguments):
            given: Any = args if place < len(args) else kwargs
            key: Any = place if place < len(args) else argument.name
            if argument.name in MODES and (place < len(args) or key in kwargs):
                told.append(given[key])
                given[key] = type(given[key])
    return (args, kwargs), told


def _alike(mine: Any, theirs: Any, rows: int, found: Twins) -> bool:
    """Whether arguments are the same ones; a multiple of the rows may stand as the number that it was."""
    if isinstance(mine, fx.Node):
        if rows and type(theirs) is int:
            times = rows_of(mine)
            return times is not None and theirs == times * rows
        return isinstance(theirs, fx.Node) and found.of.get(mine) is theirs
    if isinstance(mine, list | tuple):
        same = isinstance(theirs, list | tuple) and len(mine) == len(theirs)
        return same and all(_alike(a, b, rows, found) for a, b in zip(mine, theirs, strict=True))
    if isinstance(mine, dict):
        same = mine.keys() == theirs.keys()
        return same and all(_alike(value, theirs[key], rows, found) for key, value in mine.items())
    return type(mine) is type(theirs) and bool(mine == theirs)


def _counting(graph: fx.Graph) -> set[fx.Node]:
    """What counts calls, as batch normalisation does: buffers that are written into, and nothing reads."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.users or node.op != "call_function" or not isinstance(node.target, OpOverload):
            continue
        sources = node.all_input_nodes
        held = [n for n in sources if n.op == "get_attr" and len(n.users) == 1]
        if node.target._schema.is_mutable and sources and len(held) == len(sources):
            found |= {node, *held}
    return found


def _holds_the_same(training: fx.GraphModule, evaluation: fx.GraphModule, name: str) -> bool:
    ours, theirs = find_tensor(training, name), find_tensor(evaluation, name)
    return ours is theirs or (ours is not None and theirs is not None and torch.equal(ours, theirs))
