"""What every operation of a network costs, and which units own it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, fx

from bayesprune.structure.counting import Counter
from bayesprune.structure.graph.analysis.shape_counts import macs_by_shapes
from bayesprune.structure.graph.analysis.structure import Structure
from bayesprune.structure.graph.capture.capture import Captured
from bayesprune.structure.graph.rules.call import Findings, Raw, argument_node, arguments
from bayesprune.structure.graph.rules.einsum import letters_of
from bayesprune.structure.graph.rules.labels import compact
from bayesprune.structure.groups import WHOLE, Slot, key_of
from bayesprune.structure.plain.routed import NAME
from bayesprune.structure.terms import Term

RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")

Axes = tuple[int, ...]
"""For every dimension of a value the dimension of the term that it runs along."""


def dense_terms(structure: Structure) -> tuple[Term, ...]:
    """Parameters and multiply-accumulates of the dense network, term by term.

    The multiply-accumulates of an operation are those that PyTorch counts when it runs (products and
    convolutions, attention's too). Their owners follow from the labels; an operation whose products have no
    dimensions that are known here is a constant, owned by its section alone.

    Args:
        structure: of the whole network.

    Returns:
        Terms whose sum is exactly the dense cost.
    """
    return (*_parameters(structure), *_operations(structure))


def with_costs(structure: Structure) -> Structure:
    """Fill in what one unit of each group accounts for, on average over the group."""
    from bayesprune.structure.expected import ExpectedCost

    terms = dense_terms(structure)
    units = ExpectedCost.of(terms, structure.groups).of_one_unit()
    groups = []
    for group in structure.groups:
        parameters, macs = units.get(group.name, (group.parameters, 0.0))
        at_least = int(group.name in units)
        groups.append(
            replace(group, parameters=max(round(parameters), at_least), macs=max(round(macs), at_least))
        )
    return replace(structure, groups=tuple(groups), terms=terms)


def _parameters(structure: Structure) -> Iterator[Term]:
    network = structure.captured.network
    names: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    held: dict[str, list[tuple[int, Slot]]] = defaultdict(list)
    for number, slot in enumerate(structure.slots):
        held[slot.tensor].append((number, slot))
    for parameter in network.parameters():
        mine = sorted((s for name in names[id(parameter)] for s in held[name]), key=itemgetter(0))
        slots = {(s.dim, s.group, key_of(s.unit_ids)): s for _, s in mine}
        yield Term(parameter.shape, tuple(slots.values()), parameters=1.0)


def _operations(structure: Structure) -> Iterator[Term]:
    captured, found = structure.captured, structure.findings[False]
    counts = macs_by_shapes(captured.graphs[False], captured.network, found)
    counts = _counted(captured) if counts is None else counts
    rows = len(captured.example[0])
    for node, macs in counts.items():
        sections = sections_of(structure, node)
        parts = list(products(structure, found, node))
        total = sum(shape.numel() for shape, _ in parts)
        if not total:
            yield Term(torch.Size(), sections, macs=macs / rows)
        for shape, slots in parts:
            yield Term(shape, (*slots, *sections), macs=macs / rows / total)


def _counted(captured: Captured) -> dict[fx.Node, int]:
    """Multiply-accumulates of every operation that has some, counted in a run on the example."""
    with torch.no_grad(), Counter(captured.network) as counted:
        counter = _Counter(captured.graphs[False], counted)
        counter.run(*(x.clone() for x in captured.example))
    counted.warn()
    return counter.macs


def sections_of(structure: Structure, node: fx.Node) -> tuple[Slot, ...]:
    """The sections that an operation is in, each of which owns it as a whole."""
    units = sorted({s.unit for s in structure.sections if node.name in s.branches[False].inside})
    return tuple(Slot("", WHOLE, structure.groups[-1].name, torch.tensor([unit])) for unit in units)


class _Counter(fx.Interpreter):
    """Counts multiply-accumulates node by node."""

    def __init__(self, graph: fx.GraphModule, counted: Counter) -> None:
        super().__init__(graph)
        self.counted = counted
        self.macs: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        before = self.counted.macs
        result = super().run_node(n)
        if self.counted.macs > before:
            self.macs[n] = self.counted.macs - before
        return result


def products(
    structure: Structure, found: Findings, node: fx.Node
) -> Iterator[tuple[torch.Size, tuple[Slot, ...]]]:
    """Shapes of an operation's products, and their owners."""
    kind = str(node.target._schema.name).removeprefix("aten::")  # type: ignore[union-attr]
    given = arguments(node)
    weight = given.get("weight") if kind.startswith(("linear", "conv")) else None
    if weight is None and any(argument[0] is node for argument in found.refilled):
        return  # of the same shape before and after a cut
    if kind == NAME and isinstance(given["weight"], fx.Node):  # a row has one of the weights
        yield contraction(structure, found, [(given["weight"], (-1, 0, 1))])
    elif kind in RECURRENT:
        for matrix in (n for n in given["params"] if len(found.sizes[n]) > 1):
            yield contraction(structure, found, [(matrix, (0, 1))])
    elif isinstance(weight, fx.Node):
        x, dims = argument_node(node, "input"), len(found.sizes[weight])
        lead = len(found.sizes[x]) - 1 if x is not None else 0
        across = kind == "linear" and x is not None and any(d < lead for d, _ in _owners(structure, found, x))
        if x is not None and across:  # units among what a linear layer treats alike
            factors: list[tuple[fx.Node, Axes]] = [
                (x, tuple(range(lead + 1))),
                (weight, (lead + 1, lead)[-dims:]),
            ]
        else:
            factors = [(weight, tuple(range(dims)))]
        yield contraction(structure, found, factors)
    elif kind in ("addmm", "mm", "bmm", "matmul", "baddbmm"):
        names = [n for n in ("mat1", "batch1", "self", "mat2", "batch2", "other") if argument_node(node, n)]
        first, second = names[-2:] if kind not in ("addmm", "baddbmm") else _factors(kind)
        yield from _matmul(structure, found, argument_node(node, first), argument_node(node, second))
    elif kind == "scaled_dot_product_attention":
        q, k, v = (argument_node(node, n) for n in ("query", "key", "value"))
        assert q is not None and k is not None and v is not None
        batch: Axes = tuple(range(len(found.sizes[q]) - 2))
        length, place, width = len(batch), len(batch) + 1, len(batch) + 2
        yield contraction(structure, found, [(q, (*batch, length, width)), (k, (*batch, place, width))])
        yield contraction(structure, found, [(q, (*batch, length, -1)), (v, (*batch, place, width))])
    elif kind == "einsum":
        yield from _einsum(structure, found, given["equation"], given["tensors"])


def _factors(kind: str) -> tuple[str, str]:
    return ("mat1", "mat2") if kind == "addmm" else ("batch1", "batch2")


def _matmul(
    structure: Structure, found: Findings, first: fx.Node | None, second: fx.Node | None
) -> Iterator[tuple[torch.Size, tuple[Slot, ...]]]:
    if first is None or second is None:
        return
    a, b = len(found.sizes[first]), len(found.sizes[second])
    if min(a, b) < 2:
        return
    lead = max(a, b) - 2
    n, k, m = lead, lead + 1, lead + 2
    left: Axes = (*range(lead - (a - 2), lead), n, k)
    right: Axes = (*range(lead - (b - 2), lead), k, m)
    yield contraction(structure, found, [(first, left), (second, right)])


def _einsum(
    structure: Structure, found: Findings, equation: str, tensors: list[fx.Node]
) -> Iterator[tuple[torch.Size, tuple[Slot, ...]]]:
    words = letters_of(equation, [len(found.sizes[tensor]) for tensor in tensors])
    if words is None or len(tensors) != 2:
        return
    letters = list(dict.fromkeys("".join(words[:-1])))
    axes = [tuple(letters.index(letter) for letter in word) for word in words[:-1]]
    yield contraction(structure, found, list(zip(tensors, axes, strict=True)))


def contraction(
    structure: Structure, found: Findings, factors: list[tuple[fx.Node, Axes]]
) -> tuple[torch.Size, tuple[Slot, ...]]:
    """The shape of all products of two values, and who owns them along it; axis −1 is summed out already."""
    lengths: dict[int, int] = {}
    slots: dict[tuple[int, str, bytes], Slot] = {}
    for node, axes in factors:
        for axis, length in zip(axes, found.sizes[node], strict=True):
            lengths[axis] = max(lengths.get(axis, 1), length)
        for dim, units in _owners(structure, found, node):
            for slot in _slots(structure, axes[dim], units):
                slots[slot.dim, slot.group, key_of(slot.unit_ids)] = slot
    lengths.pop(-1, None)
    shape = torch.Size(lengths.get(axis, 1) for axis in range(max(lengths, default=-1) + 1))
    return shape, tuple(s for s in slots.values() if s.dim >= 0 and len(s.unit_ids) == shape[s.dim])


def _owners(structure: Structure, found: Findings, node: fx.Node) -> Iterator[tuple[int, Tensor]]:
    """Dimensions of a value that units run along, with the position of each index' unit, −1 for none."""
    known = found.of[node]
    if isinstance(known, Raw):
        for dim, own in enumerate(known.dims):
            start, size = found.labels.starts.get(own, (0, 0)) if own is not None else (0, 0)
            if size:
                yield dim, structure.unit_of[start : start + size]
        return
    if not isinstance(known, Tensor):  # a weight that is written into while the network runs
        return
    units = structure.unit_of[compact(known)]
    vary = [d for d in range(units.ndim)
            if units.shape[d] > 1 and not bool((units == units.narrow(d, 0, 1)).all())]  # fmt: skip
    if len(vary) == 1:
        index = tuple(slice(None) if d == vary[0] else 0 for d in range(units.ndim))
        yield vary[0], units[index]


def _slots(structure: Structure, axis: int, units: Tensor) -> Iterator[Slot]:
    for name, ids in structure.by_group(structure.owners_of(units), units):
        yield Slot("", axis, name, ids)


def living_terms(structure: Structure, alive: Tensor) -> tuple[Term, ...]:
    """The terms of a network that has lost units.

    Args:
        structure: of the whole network, with costs.
        alive: (units,), bool.
    """
    masks, start = {}, 0
    for group in structure.groups:
        masks[group.name] = alive[start : start + group.size]
        start += group.size
    left = (term.living(masks) for term in structure.terms)
    return tuple(term for term in left if term is not None)
