"""Classes of units that stand in for each other: a network costs what their numbers say."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesprune.structure.expected import Costed
from bayesprune.structure.groups import WHOLE, Group, Slot
from bayesprune.structure.terms import Term

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MOST_MONOMIALS = 50_000
"""Beyond, a polynomial is no short way to a cost."""

EXACT = 2.0**53
"""Whole numbers below it are exact in float64."""


@dataclass(frozen=True)
class Classes:
    r"""Units in classes, and the cost of a network as a polynomial of how many of each class are left.

    Two units of a group are in one class when exchanging them leaves every labelled dimension of every tensor
    and operation as it is, as a set of columns. Then neither what a network costs nor which units have a
    reader depends on which units of a class are left, but on their numbers n alone:

    .. math:: \mathrm{cost}(n) = \sum_t w_t \prod_{d} \sum_{c \in d} m_c \prod_{C \in c} n_C,

    over terms, their owned dimensions, and the kinds of columns along these, each of which is m times there
    for every choice of one unit of each of its classes. And while one unit of a class is left, taking out
    another leaves nobody unread. Units of one dense layer are one class; a filter whose flattened features
    are units too is a class by itself, and its features are another. Derived here.

    Attributes:
        labels: (units of all groups,), number of each unit's class.
        group: (classes,), number of the group that a class is part of.
        sizes: (classes,), units in it.
        factors: (monomials, degree), class of each factor of a monomial; the number of classes where there
            is none.
        powers: (monomials, degree), its power.
        weights: (costs, monomials), multiply-accumulates, parameters, and what terms stand for beyond them.
        crossed: (classes,), bool: whether a group owns an operation or tensor along two dimensions.
    """

    labels: Ints
    group: Ints
    sizes: Ints
    factors: Ints
    powers: Ints
    weights: Floats
    crossed: Mask

    @classmethod
    def of(cls, network: Costed) -> Classes | None:
        """The classes of a network as it is now; None where its cost is no short polynomial of whole numbers.

        Args:
            network: as it is now; build anew after a cut.
        """
        units, terms = _Units(network.groups), list(network.terms())
        tables = units.tables((slot.tensor, slot) for slot in network.slots)
        tables |= units.tables((number, slot) for number, term in enumerate(terms) for slot in term.slots)
        distinct = {tuple(owners.tobytes() for owners in table): table for table in tables.values()}
        labels = np.zeros(len(units.group), dtype=np.int64)
        for table in distinct.values():
            _refine(labels, table, units)
        slots = itertools.chain(network.slots, *(term.slots for term in terms))
        alone = [units.first[slot.group] + int(slot.unit_ids) for slot in slots if slot.dim == WHOLE]
        labels = _apart(_numbered(units.group, labels), alone, distinct.values())
        sizes = np.bincount(labels)
        monomials = _monomials(terms, labels, sizes, units)
        if monomials is None:
            return None
        group = np.zeros(len(sizes), dtype=np.int64)
        group[labels] = units.group
        factors, powers, weights = _arrays(monomials, len(sizes))
        dense = (weights * (np.append(sizes, 1.0)[factors] ** powers).prod(1)).sum(1)
        if not np.array_equal(weights, np.rint(weights)) or bool((dense >= EXACT).any()):
            return None
        crossed = np.isin(group, list(_crossed(terms, units)))
        return cls(labels, group, sizes, factors, powers, weights, crossed)

    def count(self, keep: Mask) -> Ints:
        """(classes,), units left of each.

        Args:
            keep: (units of all groups,).
        """
        return np.bincount(self.labels[keep], minlength=len(self.sizes))

    def cost(self, counts: Ints, step: int) -> tuple[Floats, Floats]:
        """(costs,) of the network, and (costs, classes) what one unit of each class adds.

        Args:
            counts: (classes,), units left of each.
            step: −1 for a unit that is there, 1 for one that comes to them.
        """
        values, others = self._values(counts, slice(None), step)
        adds = np.zeros((len(self.weights), len(counts) + 1))
        for place in range(values.shape[1]):
            rest = np.delete(values, place, 1).prod(1)
            self._sum_up_(adds, slice(None), place, step * (others - values)[:, place] * rest)
        return (self.weights * values.prod(1)).sum(1), adds[:, :-1]

    def change(self, counts: Ints, step: int, moved: int) -> Floats:
        """(costs, classes), by how much what a unit adds becomes less, or more, with a step of one class.

        Args:
            counts: (classes,), units left of each before it.
            step: −1 or 1.
            moved: the class.
        """
        rows = self._rows[moved]
        mine = self.factors[rows] == moved
        values, others = self._values(counts, rows, step)
        differences = step * (others - values)
        own, n, p = differences[mine], float(counts[moved]), self.powers[rows][mine]
        twice = n**p - 2 * (n + step) ** p + (n + 2 * step) ** p
        values[mine] = 1.0
        change = np.zeros((len(self.weights), len(counts) + 1))
        for place in range(values.shape[1]):
            rest = np.delete(values, place, 1).prod(1)
            pair = np.where(mine[:, place], twice, own * differences[:, place])
            self._sum_up_(change, rows, place, pair * rest)
        return change[:, :-1]

    def constant(self, moved: int) -> bool:
        """Whether ``change`` of a class is the same for all counts."""
        return bool((self.powers[self._rows[moved]].sum(1) <= 2).all())

    def steady(self, moved: int) -> bool:
        """Whether ``change`` of a class stays what it is while units of this class alone come or go."""
        rows = self._rows[moved]
        powers = np.where(self.factors[rows] == moved, self.powers[rows], 0).sum(1)
        return bool(((powers == 1) | (self.powers[rows].sum(1) <= 2)).all())

    @cached_property
    def _rows(self) -> list[Ints]:
        """Class → the monomials that it is in."""
        flat, where = self.factors.ravel(), np.arange(self.factors.size) // self.factors.shape[1]
        order = np.argsort(flat, kind="stable")
        starts = np.searchsorted(flat[order], np.arange(len(self.sizes) + 1))
        return [where[order][first:last] for first, last in itertools.pairwise(starts)]

    def _values(self, counts: Ints, rows: Any, step: int) -> tuple[Floats, Floats]:
        """(monomials, degree), the factors now, and after a step of their class."""
        n, powers = np.append(counts, 1).astype(float)[self.factors[rows]], self.powers[rows]
        return n**powers, (n + step) ** powers

    def _sum_up_(self, total: Floats, rows: Any, place: int, values: Floats) -> None:
        """Add (monomials,) values, weighted, to (costs, classes and one for none) by a factor's class."""
        for kind in range(len(total)):
            weighted = self.weights[kind, rows] * values
            total[kind] += np.bincount(self.factors[rows, place], weighted, total.shape[1])


class _Units:
    """The units of all groups in one row."""

    def __init__(self, groups: tuple[Group, ...]) -> None:
        sizes = [group.size for group in groups]
        self.first = {g.name: sum(sizes[:number]) for number, g in enumerate(groups)}
        self.group: Ints = np.repeat(np.arange(len(groups)), sizes)

    def ids(self, slot: Slot) -> Ints:
        """(length,), number of the unit that each column belongs to, −1 for nobody's."""
        ids = slot.unit_ids.numpy()
        return np.where(ids >= 0, ids + self.first[slot.group], -1)

    def tables(self, slots: Iterable[tuple[Hashable, Slot]]) -> dict[tuple[Hashable, int], list[Ints]]:
        """(what, dimension) → who owns its columns, by every slot along it."""
        tables: dict[tuple[Hashable, int], list[Ints]] = {}
        for what, slot in slots:
            if slot.dim != WHOLE:
                tables.setdefault((what, slot.dim), []).append(self.ids(slot))
        return tables


def _numbered(first: Ints, second: Ints) -> Ints:
    """Pairs of whole numbers as numbers from 0 on, in order."""
    pairs = first * (int(second.max(initial=0)) + 1) + second
    numbers: Ints = np.unique(pairs, return_inverse=True)[1].reshape(-1)
    return numbers


def _refine(labels: Ints, table: list[Ints], units: _Units) -> None:
    """Tell units of a group apart, in place, by their columns: how many, and with whom they own them."""
    for number, ids in enumerate(table):
        there = np.flatnonzero(ids >= 0)
        if not len(there):
            continue
        mates = np.zeros(len(there), dtype=np.int64)
        for other in (*table[:number], *table[number + 1 :]):
            mates = _numbered(mates, other[there] + 1)
        mine = np.flatnonzero(units.group == units.group[ids[there[0]]])
        marks = _marks(ids[there] - mine[0], mates, len(mine))
        labels[mine] = _numbered(labels[mine], marks)


def _marks(unit: Ints, mates: Ints, size: int) -> Ints:
    """(size,), equal for units that have the same columns: as many with the same mates."""
    order = np.lexsort((mates, unit))
    unit, mates = unit[order], mates[order]
    starts = np.searchsorted(unit, np.arange(size + 1))
    counts, known = np.diff(starts), np.append(mates, 0)
    low, high = known[starts[:-1]], known[np.maximum(starts[1:] - 1, 0)]
    low[counts == 0] = high[counts == 0] = 0
    marks = _numbered(counts, low)
    several: dict[bytes, int] = {}
    for number in np.flatnonzero(low != high):
        columns = mates[starts[number] : starts[number + 1]].tobytes()
        marks[number] = size + several.setdefault(columns, len(several))
    return marks


def _apart(labels: Ints, alone: Iterable[int], tables: Iterable[list[Ints]]) -> Ints:
    """Units by themselves: those that own a whole tensor, and classes that own a column twice."""
    single = np.zeros(len(labels), dtype=np.bool_)
    single[list(alone)] = True
    for table in tables:
        for first, second in itertools.combinations(table, 2):
            both = (first >= 0) & (second >= 0)
            twice = labels[first[both]]
            single |= np.isin(labels, twice[twice == labels[second[both]]])
    return _numbered(labels, np.where(single, np.arange(len(labels)) + 1, 0))


Kinds = dict[tuple[int, ...], float]
"""Classes, repeated where they are there several times → a factor on the product of their numbers."""


def _monomials(
    terms: Iterable[Term], labels: Ints, sizes: Ints, units: _Units
) -> dict[tuple[int, ...], Floats] | None:
    """Classes → (costs,) weights, of multiply-accumulates first; None where that does not fit."""
    total: dict[tuple[int, ...], Floats] = {}
    terms = list(terms)
    width = 2 + max((len(term.more) for term in terms), default=0)
    known: dict[tuple[bytes, ...], Kinds | None] = {}
    for term in terms:
        numbers = (term.macs, term.parameters, *term.more)
        weight = np.array(numbers + (0.0,) * (width - len(numbers))) * math.prod(
            n for dim, n in enumerate(term.shape) if all(s.dim != dim for s in term.slots)
        )
        sections = {units.first[s.group] + int(s.unit_ids) for s in term.slots if s.dim == WHOLE}
        product: Kinds = {tuple(sorted(int(labels[unit]) for unit in sections)): 1.0}
        for table in units.tables((0, slot) for slot in term.slots).values():
            key = tuple(owners.tobytes() for owners in table)
            if key not in known:
                known[key] = _kinds(table, labels, sizes)
            kinds = known[key]
            if kinds is None or len(product) * len(kinds) > MOST_MONOMIALS:
                return None
            product = _times(product, kinds)
        for classes, factor in product.items():
            total[classes] = total.get(classes, np.zeros(width)) + weight * factor
        if len(total) > MOST_MONOMIALS:
            return None
    return total


def _times(first: Kinds, second: Kinds) -> Kinds:
    product: Kinds = {}
    for (some, a), (more, b) in itertools.product(first.items(), second.items()):
        classes = tuple(sorted(some + more))
        product[classes] = product.get(classes, 0.0) + a * b
    return product


def _kinds(table: list[Ints], labels: Ints, sizes: Ints) -> Kinds | None:
    """The kinds of columns along a dimension; None where a choice of units has no whole number of them."""
    owners = np.stack([np.where(ids >= 0, labels[ids], -1) for ids in table], 1)
    kinds: Kinds = {}
    for row, count in zip(*np.unique(owners, axis=0, return_counts=True), strict=True):
        classes = tuple(sorted({int(c) for c in row if c >= 0}))
        kinds[classes] = kinds.get(classes, 0.0) + int(count) / math.prod(int(sizes[c]) for c in classes)
    return kinds if all(m == round(m) for m in kinds.values()) else None


def _arrays(monomials: dict[tuple[int, ...], Floats], padding: int) -> tuple[Ints, Ints, Floats]:
    """Factors, powers and weights of ``Classes``."""
    powers = [Counter(classes) for classes in monomials]
    degree = max((len(p) for p in powers), default=0) or 1
    factors = [[*p.keys(), *[padding] * (degree - len(p))] for p in powers]
    raised = [[*p.values(), *[0] * (degree - len(p))] for p in powers]
    weights = np.array(list(monomials.values())).T
    shape = (len(powers), degree)
    return np.array(factors, np.int64).reshape(shape), np.array(raised, np.int64).reshape(shape), weights


def _crossed(terms: Iterable[Term], units: _Units) -> set[int]:
    """Numbers of groups in terms that a group owns along several dimensions."""
    crossed: set[int] = set()
    names = list(units.first)
    for term in terms:
        along = {(slot.group, slot.dim) for slot in term.slots if slot.dim != WHOLE}
        groups = {group for group, _ in along}
        if len(along) > len(groups):
            crossed |= {names.index(group) for group in groups}
    return crossed
