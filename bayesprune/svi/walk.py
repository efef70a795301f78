"""One unit after the other, as choices between classes of units: exact counts, and many steps at a time."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bayesprune.structure.classes import Classes, Floats, Ints, Mask
from bayesprune.svi.fitter import Fitter

NEAR = 1e-10
"""Numbers that lie this close to each other, relatively, are told apart by a look at all units alone."""

STRIDE, LOOK = 8, 200_000
"""Steps that are looked ahead over at first, and numbers that such a look may hold."""


class Rule(Protocol):
    """Which unit is next: of those allowed the one with the least gain for its cost, or with the most."""

    @property
    def step(self) -> int:
        """−1 where units are taken out, the least gain first; 1 where they are put back, the most first."""

    def judge(self, ratios: Floats, shares: Floats) -> tuple[Mask, Floats, Floats]:
        """Whether to go on, what gains are divided by, and how much room is left: a unit needs 0 or more.

        Args:
            ratios: (..., costs), costs over budgets.
            shares: (..., costs, classes), what one unit adds to them.

        Returns:
            (...,), (..., classes) and (..., classes).
        """

    def plain(self, unit: int, of_class: int, keep: Tensor) -> bool:
        """Whether nobody else comes or goes with a unit.

        Args:
            unit: its number.
            of_class: how many of its class are kept.
            keep: (units of all groups,), bool: as it is, but for plain steps since.
        """

    def allows(self, ratio: float) -> bool:
        """Whether a step with all that follows from it may end there.

        Args:
            ratio: cost over budget, the largest where there are several.
        """

    def move(self, keep: Tensor, able: Tensor, unit: int) -> Tensor:
        """What is kept after a unit's step: ``keep``, and the unit not able any more, where it must not be.

        Args:
            keep: (units of all groups,), bool, closed.
            able: (units of all groups,), bool; changed in place.
            unit: its number.
        """

    def look(self, keep: Tensor, able: Tensor) -> Tensor | None:
        """What is kept after the next step, found by looking at every unit; None at the end.

        Args:
            keep: (units of all groups,), bool, closed.
            able: (units of all groups,), bool; changed in place.
        """


def walk(fitter: Fitter, rule: Rule, keep: Tensor, candidates: Tensor) -> Tensor:
    """Follow a rule to its end, by classes of units where there are any of use.

    Args:
        fitter: knows the budget.
        rule: which unit is next.
        keep: (units of all groups,), bool, closed.
        candidates: (units of all groups,), bool: which units may come or go.

    Returns:
        (units of all groups,), bool, closed.
    """
    classes, closed = fitter.classes, fitter.close(keep)
    if classes is not None and closed is not None and torch.equal(closed, keep):
        return _Walk(fitter, classes, rule, keep, candidates).end()
    able = candidates.clone()
    while (after := rule.look(keep, able)) is not None:
        keep = after
    return keep


class _Walk:
    """Steps of a rule, exactly those that looking at every unit each time would give.

    Units of a class (``Classes``) cost the same, and only how many of them are kept matters. So they move in
    the order of their gain, a step is a choice between classes, and as many steps as one class has in a row
    are taken together. What this does not decide beyond rounding, and steps that others follow from, are left
    to the rule, which looks at all units; how often that is hangs on the number of classes, not of units.

    Args:
        fitter: knows the budget; its ``classes`` are there.
        classes: of the fitter.
        rule: which unit is next.
        keep: (units of all groups,), bool, closed.
        able: (units of all groups,), bool: which units may move.
    """

    def __init__(self, fitter: Fitter, classes: Classes, rule: Rule, keep: Tensor, able: Tensor) -> None:
        self._fitter, self._classes, self._rule, self._step = fitter, classes, rule, rule.step
        self._keep, self._able = keep.clone(), able.clone()
        self._limits: Floats = fitter.limits.numpy()
        self._changes: dict[int, Floats] = {}
        self._begin()

    def end(self) -> Tensor:
        """(units of all groups,), bool, closed: what is kept when the rule has come to its end."""
        last = -1
        while True:
            chosen = self._best()
            if chosen is None:
                self._stop()
                keep = self._rule.look(self._keep, self._able)
                if keep is None:
                    return self._keep
                self._keep = keep
                self._begin()
            elif self._spare(chosen) < 1:
                self._able[self._first(chosen)] = False
                self._advance(chosen, 1)
            elif not self._rule.plain(self._first(chosen), int(self._counts[chosen]), self._keep):
                self._with_others(chosen)
            else:
                self._move(chosen, self._reach(chosen) if chosen == last else 1)
            last = -1 if chosen is None else chosen

    def _begin(self) -> None:
        """Queues and costs, from what is kept and what is able."""
        fitter, classes, keep = self._fitter, self._classes, self._keep.numpy()
        waiting = self._able.numpy() & (keep if self._step < 0 else ~keep)
        order = fitter.order(-self._step)
        self._queue: Ints = order[waiting[order]]
        self._key: Floats = np.append(-self._step * fitter.gain.numpy()[self._queue], np.inf)
        of = classes.labels[self._queue]
        self._near = self._near_the_next(of)
        ends = np.searchsorted(of, np.arange(len(classes.sizes) + 1))
        self._at: Ints = ends[:-1].copy()
        self._end: Ints = ends[1:]
        self._heads: Floats = np.where(self._at < self._end, self._key[self._at], np.inf)
        self._counts = classes.count(keep)
        self._of_group: Ints = np.bincount(classes.group, self._counts).astype(np.int64)
        floors = fitter.least(self._keep)
        self._floors: Ints = np.array([floors[group.name] for group in fitter.gated.groups], dtype=np.int64)
        self._totals, self._adds = classes.cost(self._counts, self._step)
        self._moved: list[Ints] = []
        self._stride = STRIDE

    def _stop(self) -> None:
        """Bring what is kept up to date with the queues."""
        self._keep = self._keep.clone()
        if self._moved:
            self._keep[torch.from_numpy(np.concatenate(self._moved))] = self._step > 0

    def _with_others(self, of: int) -> None:
        """Take the step of a class with all that follows from it."""
        gone = self._fitter.readers.follow(of, self._counts) if self._step < 0 else []
        groups = self._fitter.gated.groups
        if not gone or any(groups[group].optional for group in self._classes.group[gone]):
            unit = self._first(of)
            self._stop()
            self._keep = self._rule.move(self._keep, self._able, unit)
            self._begin()
        else:
            self._empty(of, gone)

    def _empty(self, of: int, gone: list[int]) -> None:
        """Take out the last unit of a class, and all of the classes that nobody reads without it."""
        before = self._totals, self._adds, self._counts.copy(), self._of_group.copy()
        for each in gone:
            left = int(self._counts[each])
            for number in [left] if self._classes.steady(each) else [1] * left:
                self._count(each, number)
        starves = bool((self._of_group < self._floors).any())
        if starves or not self._rule.allows(float((self._totals / self._limits).max())):
            self._totals, self._adds, self._counts, self._of_group = before
            self._able[self._first(of)] = False
            self._advance(of, 1)
            return
        for each in gone:
            self._moved.append(self._fitter.members(each))
            self._advance(each, int(self._end[each] - self._at[each]))

    def _near_the_next(self, of: Ints) -> Mask:
        """(waiting,), whether rounding could exchange a unit with the next of its class."""
        first, second = self._key[:-2], self._key[1:-1]
        near = second - first <= 2 * NEAR * np.maximum(abs(first), abs(second))
        equal = (first == second) & (~self._classes.crossed[of[:-1]] | (first == 0))
        return np.append((of[:-1] == of[1:]) & near & ~equal, [False, False])

    def _first(self, of: int) -> int:
        """The unit of a class that is next."""
        return int(self._queue[self._at[of]])

    def _spare(self, of: int) -> int:
        """How many units the group of a class may still lose; any number where units are put back."""
        group = self._classes.group[of]
        return int(self._of_group[group] - self._floors[group]) if self._step < 0 else len(self._keep)

    def _best(self) -> int | None:
        """The class whose first unit is next; None where only a look at all units can tell."""
        score, sure = self._scores(self._totals, self._adds, self._heads)
        best = int(score.argmin())
        least = float(score[best])
        if not sure or least == np.inf:
            return None
        tied = (score <= least + 2 * NEAR * abs(least)).nonzero()[0]
        if len(tied) > 1:
            if least != 0:
                return None
            best = int(tied[self._queue[self._at[tied]].argmin()])  # whatever they cost: the first unit
        return None if self._near[self._at[best]] else best

    def _scores(self, totals: Floats, adds: Floats, heads: Floats) -> tuple[Floats, Mask]:
        """(..., classes) scores of which the least is next, ∞ for none, and (...,) whether they are sure.

        Args:
            totals: (..., costs), of the network.
            adds: (..., costs, classes), what a unit adds to them.
            heads: (..., classes), gains of the units that are first; negative where the most is sought.
        """
        ratios = totals / self._limits
        on, cost, room = self._rule.judge(ratios, adds / self._limits[:, None])
        free = (heads < np.inf) & (cost > 0)
        doubt = free & (abs(room) <= NEAR * np.maximum(ratios.max(-1), 1.0)[..., None])
        score = np.full(heads.shape, np.inf)
        np.divide(heads, cost, out=score, where=free & (room >= 0))
        return score, on & ~doubt.any(-1)

    def _reach(self, of: int) -> int:
        """How many units of a class move before another's turn comes, or anything else happens."""
        if not self._classes.steady(of):
            return 1
        at = int(self._at[of])
        most = min(self._spare(of), int(self._end[of]) - at)
        most = min(most, int(self._counts[of]) - 1) if self._step < 0 else most
        number = min(most, self._stride, max(LOOK // len(self._counts), 1))
        i = np.arange(number, dtype=float)[:, None]
        change = self._change(of)
        totals = self._totals + self._step * i * self._adds[:, of] + i * (i - 1) / 2 * change[:, of]
        heads = np.repeat(self._heads[None], number, 0)
        heads[:, of] = self._key[at : at + number]
        score, sure = self._scores(totals, self._adds + self._step * i[..., None] * change, heads)
        best = score[:, of]
        sure = sure & (best < np.inf) & ~self._near[at : at + number]
        best = np.where(sure, best, 0.0)
        ours = sure & ((score <= (best + 2 * NEAR * abs(best))[:, None]).sum(1) == 1)
        reach = number if bool(ours.all()) else max(int(ours.argmin()), 1)
        self._stride = 4 * number if reach == number else max(2 * reach, STRIDE)
        return reach

    def _move(self, of: int, number: int) -> None:
        """Take that many steps of a class."""
        at = int(self._at[of])
        self._moved.append(self._queue[at : at + number])
        self._count(of, number)
        self._advance(of, number)

    def _count(self, of: int, number: int) -> None:
        """Counts and costs after that many steps of a class that is steady, or after one."""
        change, step = self._change(of), self._step
        slope = step * number * self._adds[:, of]
        self._totals = self._totals + slope + number * (number - 1) / 2 * change[:, of]
        self._adds = self._adds + step * number * change
        self._counts[of] += step * number
        self._of_group[self._classes.group[of]] += step * number

    def _advance(self, of: int, number: int) -> None:
        self._at[of] += number
        at = self._at[of]
        self._heads[of] = self._key[at] if at < self._end[of] else np.inf

    def _change(self, of: int) -> Floats:
        if of in self._changes:
            return self._changes[of]
        change = self._classes.change(self._counts, self._step, of)
        if self._classes.constant(of):
            self._changes[of] = change
        return change
