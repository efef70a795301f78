"""Taking units out, or putting them back, one by one, until a budget is met: counts are exact."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesprune.gated import GatedModel
from bayesprune.priors import CostGates
from bayesprune.structure import ExpectedCost
from bayesprune.structure.groups import WHOLE, close_over, least_units

WITHIN = 0.02
"""How far under its budget a network may end, as a share of the budget."""


class Fitter:
    """Removes units one by one until a budget is met, on counts that are exact.

    Args:
        gated: the model; only looked at.
        prior: its prior, which has a budget.
        gain: (units of all groups,), nats that each unit saves, on the CPU.
        least: units that every group keeps.
    """

    def __init__(self, gated: GatedModel, prior: CostGates, gain: Tensor, least: int) -> None:
        assert prior.budget is not None
        self.gated, self.gain, self.prices = gated, gain, prior.prices.cpu()
        self._costs = ExpectedCost(gated.network)
        # A cost without a budget has no limit: infinity, since NaN would spoil the other's slopes too.
        self._limits = (prior.dense * prior.budget.nan_to_num(torch.inf)).cpu()
        self._least = least
        self._known: dict[bytes, dict[str, int]] = {}
        self.floors = self._least_units(gated.alive.cpu())

    def ratio(self, keep: Tensor) -> float:
        """Cost over budget, the larger of the two where there are two, of the network cut to ``keep``.

        Args:
            keep: (units of all groups,), bool, as ``close`` gives it.
        """
        return float(self._ratios(keep.double()).max())

    def close(self, keep: Tensor) -> Tensor | None:
        """``keep`` without the units that nobody would read any more; None where a group would starve."""
        alive = close_over(self.gated.network.slots, self.gated.by_group(keep))
        floors = self._least_units(keep)
        if any(int(mask.sum()) < floors[name] for name, mask in alive.items()):
            return None
        return torch.cat(list(alive.values()))

    def _least_units(self, keep: Tensor) -> dict[str, int]:
        """Group → units that it must keep, with the sections that ``keep`` has."""
        parts, kept = self.gated.by_group(self.gated.alive.cpu()), self.gated.by_group(keep)
        parts |= {g.name: kept[g.name] for g in self.gated.groups if g.optional}
        key = b"".join(parts[g.name].numpy().tobytes() for g in self.gated.groups if g.optional)
        if key not in self._known:
            gated = self.gated
            self._known[key] = least_units(gated.groups, gated.network.slots, parts, self._least)
        return self._known[key]

    def trim(self, keep: Tensor, candidates: Tensor, *, high: float, low: float, strict: bool) -> Tensor:
        """Take out candidates until the ratio is at most ``high``.

        Each time it is the unit with the least gain for what it adds to the costs that are over the budget,
        of those that leave the ratio at ``low`` or more. Where there is none: the one that leaves it the
        highest, or, if ``strict``, no more.

        Args:
            keep: (units of all groups,), bool, closed.
            candidates: (units of all groups,), bool.
            high: where to stop.
            low: where not to go.
            strict: never go there.

        Returns:
            (units of all groups,), bool, closed.
        """
        able = candidates.clone()
        while True:
            ratios, adds = self._slopes(keep)
            if float(ratios.max()) <= high:
                return keep
            cost = adds[ratios > min(high, 1.0)].sum(0)
            after = (ratios.unsqueeze(1) - adds).amax(0)
            free = able & keep & (cost > 0)
            fine = free & (after >= low)
            if bool(fine.any()):
                unit = int(torch.where(fine, self.gain / cost, torch.inf).argmin())
            elif bool(free.any()) and not strict:
                unit = int(torch.where(free, after, -torch.inf).argmax())
            else:
                return keep
            smaller = keep.clone()
            smaller[unit] = False
            closed = self.close(smaller)
            if closed is None or (strict and self.ratio(closed) < low):
                able[unit] = False
            else:
                keep = closed

    def fill(self, keep: Tensor, candidates: Tensor) -> Tensor:
        """Put candidates back while there is room, the most gain for its cost first, up to the window.

        Args:
            keep: (units of all groups,), bool, closed, below the budget.
            candidates: (units of all groups,), bool.

        Returns:
            (units of all groups,), bool, closed, still below the budget.
        """
        able = candidates & ~keep
        while True:
            ratios, adds = self._slopes(keep)
            fits = able & ((ratios.unsqueeze(1) + adds) <= 1).all(0) & (adds.sum(0) > 0)
            if float(ratios.max()) >= 1 - WITHIN or not bool(fits.any()):
                return keep
            unit = int(torch.where(fits, self.gain / adds.sum(0), -torch.inf).argmax())
            larger = keep.clone()
            larger[[unit, *self._partners(unit, candidates)]], able[unit] = True, False
            closed = self.close(larger)
            if closed is not None and bool(closed[unit]) and self.ratio(closed) <= 1:
                keep = closed

    def _partners(self, unit: int, candidates: Tensor) -> list[int]:
        """One unit of each group that owns a unit's columns with it, the best: alone nobody would read it."""
        parts, slots = self.gated.slices(), self.gated.network.slots
        group = next(name for name, part in parts.items() if part.start <= unit < part.stop)
        own = next((s for s in slots if s.group == group and s.reads), None)
        if own is None:
            return self._inside(unit - parts[group].start, group, candidates)
        columns = own.unit_ids == unit - parts[group].start
        partners = []
        for slot in slots:
            if (slot.tensor, slot.dim) == (own.tensor, own.dim) and slot.group != group:
                ids = slot.unit_ids[columns & (slot.unit_ids >= 0)].unique()
                shared = parts[slot.group].start + ids
                shared = shared[candidates[shared]]
                if len(shared):
                    partners.append(int(shared[self.gain[shared].argmax()]))
        return partners

    def _inside(self, section: int, group: str, candidates: Tensor) -> list[int]:
        """The best unit of every group that lives inside a section."""
        parts, slots = self.gated.slices(), self.gated.network.slots
        owned = {s.tensor for s in slots if s.group == group and int(s.unit_ids[0]) == section}
        owned = {s.tensor for s in slots if s.dim == WHOLE} & owned
        names = {s.group for s in slots if s.reads and s.tensor in owned}
        names -= {s.group for s in slots if s.reads and s.tensor not in owned}
        best = []
        for name in names:
            gain = torch.where(candidates[parts[name]], self.gain[parts[name]], -torch.inf)
            best.append(parts[name].start + int(gain.argmax()))
        return best

    def _ratios(self, keep: Tensor) -> Tensor:
        expected = self._costs(self.gated.by_group(keep))
        return torch.stack([expected.macs, expected.parameters]) / self._limits

    def _slopes(self, keep: Tensor) -> tuple[Tensor, Tensor]:
        """(2,) costs over budgets, and (2, units) what each unit adds to them."""
        with torch.enable_grad():
            theta = keep.double().requires_grad_()
            ratios = self._ratios(theta)
            slopes = [
                torch.autograd.grad(ratio, theta, retain_graph=True)[0]
                if bool(limit.isfinite())
                else torch.zeros_like(theta)
                for ratio, limit in zip(ratios, self._limits, strict=True)
            ]
        return ratios.detach(), torch.stack(slopes)
