"""Which units to keep so that a network meets its budget: the least evidence for its cost goes first."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from bayesprune.svi.fill import fill
from bayesprune.svi.fitter import WITHIN, Fitter
from bayesprune.svi.trim import trim

NEAR = 1.3
"""From how many budgets on several ways down are tried."""

FAR = 1.5
"""From how many budgets on units are compared one by one."""

WAYS = 40
"""How many ways down are tried for one number of units."""

ALWAYS, AT_MOST = 2, 4
"""How many units such a way takes out before the greedy rule goes on: at the most, and where none of the ways
tried so far has come close enough."""


def within(fitter: Fitter, keep: Tensor) -> Tensor:
    """The network at its budget: in the window below it if there is a way, with the most evidence left.

    The greedy way is tried first, and then ways that take out a few units of chosen groups before it:
    large units may have to go together, or not at all, for the small ones to fill the rest.

    Args:
        fitter: knows the budget.
        keep: (units of all groups,), bool, closed: where to begin.

    Returns:
        (units of all groups,), bool, closed.
    """

    def worth(keep: Tensor) -> tuple[float, float]:
        ratio = fitter.ratio(keep)
        if ratio > 1:
            return -ratio, 0.0
        return min(ratio, 1 - WITHIN), float(fitter.gain[keep].sum())

    everyone = torch.ones_like(keep)
    near = trim(fitter, _foremost(fitter, keep), everyone, high=NEAR, low=1.0, strict=True)
    if fitter.ratio(near) <= 1:
        return near
    best = near
    for taken in range(AT_MOST + 1):
        for start in _without_worst(fitter, near, taken):
            end = trim(fitter, start, everyone, high=1.0, low=1 - WITHIN, strict=False)
            best = max(best, fill(fitter, end, keep), key=worth)
        if taken >= ALWAYS and 1 - WITHIN <= fitter.ratio(best) <= 1:
            return best
    for taken in range(1, AT_MOST + 1):  # exchange units of one group for units of another
        for start in _without_worst(fitter, best, taken):
            best = max(best, fill(fitter, start, keep), key=worth)
    return best


def _foremost(fitter: Fitter, keep: Tensor) -> Tensor:
    """Far above the budget: the units with the most gain for their price that cost ``FAR`` budgets.

    One by one, on costs that change with every removal, a group that has become cheap would be kept whole
    and its neighbour lost: far away units are compared at the costs of the network as it was.
    """
    rank = torch.where(keep, fitter.gain / fitter.prices, -torch.inf)
    for name, part in fitter.gated.slices().items():
        rank[part.start + rank[part].topk(fitter.floors[name]).indices] = torch.inf
    order, few, many = rank.argsort(descending=True, stable=True), 0, int(keep.sum())
    if fitter.ratio(keep) <= FAR:
        return keep
    found = keep
    while many - few > 1:
        middle = (few + many) // 2
        mask = torch.zeros_like(keep)
        mask[order[:middle]] = True
        closed = fitter.close(mask)
        if closed is not None and fitter.ratio(closed) >= FAR:
            found, many = closed, middle
        else:
            few = middle
    return found


def _without_worst(fitter: Fitter, keep: Tensor, taken: int) -> Iterator[Tensor]:
    """``keep`` without so many units, those with the least evidence of their group, in every division."""
    parts = list(fitter.gated.slices().values())
    if math.comb(len(parts) + taken - 1, taken) > WAYS:
        return  # many groups: units are small enough for the greedy way
    for groups in itertools.combinations_with_replacement(range(len(parts)), taken):
        smaller = keep.clone()
        for number in set(groups):
            part = parts[number]
            worst = torch.where(keep[part], fitter.gain[part], torch.inf).argsort()[: groups.count(number)]
            smaller[part.start + worst] = False
        closed = fitter.close(smaller)
        if closed is not None:
            yield closed
