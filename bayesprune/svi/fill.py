"""Putting units back one by one while a budget has room for them."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesprune.structure.classes import Floats, Mask
from bayesprune.structure.groups import WHOLE, Slot
from bayesprune.svi.fitter import WITHIN, Fitter
from bayesprune.svi.walk import walk


def fill(fitter: Fitter, keep: Tensor, candidates: Tensor) -> Tensor:
    """Put candidates back while there is room, the most gain for its cost first, up to the window.

    Args:
        fitter: knows the budget.
        keep: (units of all groups,), bool, closed, below the budget.
        candidates: (units of all groups,), bool.

    Returns:
        (units of all groups,), bool, closed, still below the budget.
    """
    return walk(fitter, _Back(fitter, candidates), keep, candidates)


def partners(fitter: Fitter, candidates: Tensor, unit: int) -> list[int]:
    """One unit of each group that owns a unit's columns with it, the best: alone nobody would read it.

    Args:
        fitter: knows the gains.
        candidates: (units of all groups,), bool: which may be.
        unit: number among all groups' units.
    """
    return _Back(fitter, candidates)._partners(unit)


class _Back:
    step = 1

    def __init__(self, fitter: Fitter, candidates: Tensor) -> None:
        self.fitter, self.candidates = fitter, candidates
        self._known: dict[int, list[int] | None] = {}

    def judge(self, ratios: Floats, shares: Floats) -> tuple[Mask, Floats, Floats]:
        room = 1 - (ratios[..., None] + shares).max(-2)
        return ratios.max(-1) < 1 - WITHIN, shares.sum(-2), room

    def plain(self, unit: int, of_class: int, keep: Tensor) -> bool:
        if not of_class:
            return False
        assert self.fitter.classes is not None
        of = int(self.fitter.classes.labels[unit])
        if of not in self._known:  # all of a class share their columns with the same units
            self._known[of] = self._partners(unit) if self._read(unit) else None
        partners = self._known[of]
        return partners is not None and bool(keep[partners].all())

    def allows(self, ratio: float) -> bool:
        return ratio <= 1

    def move(self, keep: Tensor, able: Tensor, unit: int) -> Tensor:
        larger = keep.clone()
        larger[[unit, *self._partners(unit)]], able[unit] = True, False
        closed = self.fitter.close(larger)
        done = closed is not None and bool(closed[unit]) and self.allows(self.fitter.ratio(closed))
        return closed if closed is not None and done else keep

    def look(self, keep: Tensor, able: Tensor) -> Tensor | None:
        ratios, adds = self.fitter.slopes(keep)
        fits = able & ~keep & ((ratios.unsqueeze(1) + adds) <= 1).all(0) & (adds.sum(0) > 0)
        if float(ratios.max()) >= 1 - WITHIN or not bool(fits.any()):
            return None
        return self.move(
            keep, able, int(torch.where(fits, self.fitter.gain / adds.sum(0), -torch.inf).argmax())
        )

    def _partners(self, unit: int) -> list[int]:
        """One unit of each group that owns a unit's columns with it, the best: alone nobody would read it."""
        parts, slots = self.fitter.gated.slices(), self.fitter.gated.network.slots
        group, own = self._group(unit), self._read(unit)
        if own is None:
            return self._inside(unit - parts[group].start, group)
        columns = own.unit_ids == unit - parts[group].start
        partners = []
        for slot in slots:
            if (slot.tensor, slot.dim) == (own.tensor, own.dim) and slot.group != group:
                ids = slot.unit_ids[columns & (slot.unit_ids >= 0)].unique()
                shared = parts[slot.group].start + ids
                shared = shared[self.candidates[shared]]
                if len(shared):
                    partners.append(int(shared[self.fitter.gain[shared].argmax()]))
        return partners

    def _group(self, unit: int) -> str:
        parts = self.fitter.gated.slices()
        return next(name for name, part in parts.items() if part.start <= unit < part.stop)

    def _read(self, unit: int) -> Slot | None:
        """The first reader of a unit's group."""
        group = self._group(unit)
        return next((s for s in self.fitter.gated.network.slots if s.group == group and s.reads), None)

    def _inside(self, section: int, group: str) -> list[int]:
        """The best unit of every group that lives inside a section."""
        parts, slots = self.fitter.gated.slices(), self.fitter.gated.network.slots
        owned = {s.tensor for s in slots if s.group == group and int(s.unit_ids[0]) == section}
        owned = {s.tensor for s in slots if s.dim == WHOLE} & owned
        names = {s.group for s in slots if s.reads and s.tensor in owned}
        names -= {s.group for s in slots if s.reads and s.tensor not in owned}
        best = []
        for name in names:
            gain = torch.where(self.candidates[parts[name]], self.fitter.gain[parts[name]], -torch.inf)
            best.append(parts[name].start + int(gain.argmax()))
        return best
