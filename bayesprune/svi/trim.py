"""Taking units out one by one until a budget is met: counts are exact."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesprune.structure.classes import Floats, Mask
from bayesprune.svi.fitter import Fitter
from bayesprune.svi.walk import walk


def trim(
    fitter: Fitter, keep: Tensor, candidates: Tensor, *, high: float, low: float, strict: bool
) -> Tensor:
    """Take out candidates until the ratio is at most ``high``.

    Each time it is the unit with the least gain for what it adds to the costs that are over the budget,
    of those that leave the ratio at ``low`` or more. Where there is none: the one that leaves it the
    highest, or, if ``strict``, no more.

    Args:
        fitter: knows the budget.
        keep: (units of all groups,), bool, closed.
        candidates: (units of all groups,), bool.
        high: where to stop.
        low: where not to go.
        strict: never go there.

    Returns:
        (units of all groups,), bool, closed.
    """
    return walk(fitter, _Out(fitter, high, low, strict), keep, candidates)


@dataclass(frozen=True)
class _Out:
    fitter: Fitter
    high: float
    low: float
    strict: bool
    step: int = -1

    def judge(self, ratios: Floats, shares: Floats) -> tuple[Mask, Floats, Floats]:
        over = ratios > min(self.high, 1.0)
        room = (ratios[..., None] - shares).max(-2) - self.low
        return ratios.max(-1) > self.high, (over[..., None] * shares).sum(-2), room

    def plain(self, unit: int, of_class: int, keep: Tensor) -> bool:
        return of_class > 1  # its readers, and what it reads, have another of its kind

    def allows(self, ratio: float) -> bool:
        return not self.strict or ratio >= self.low

    def move(self, keep: Tensor, able: Tensor, unit: int) -> Tensor:
        smaller = keep.clone()
        smaller[unit] = False
        closed = self.fitter.close(smaller)
        if closed is None or not self.allows(self.fitter.ratio(closed)):
            able[unit] = False
            return keep
        return closed

    def look(self, keep: Tensor, able: Tensor) -> Tensor | None:
        ratios, adds = self.fitter.slopes(keep)
        if float(ratios.max()) <= self.high:
            return None
        cost = adds[ratios > min(self.high, 1.0)].sum(0)
        after = (ratios.unsqueeze(1) - adds).amax(0)
        free = able & keep & (cost > 0)
        fine = free & (after >= self.low)
        if bool(fine.any()):
            unit = int(torch.where(fine, self.fitter.gain / cost, torch.inf).argmin())
        elif bool(free.any()) and not self.strict:
            unit = int(torch.where(free, after, -torch.inf).argmax())
        else:
            return None
        return self.move(keep, able, unit)
