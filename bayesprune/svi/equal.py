"""Sizes that are held: which dead units may go together, and which sizes a budget is met with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bayesprune.structure.kinds import Kind, allowed
from bayesprune.svi.fill import partners
from bayesprune.svi.fitter import Fitter
from bayesprune.svi.within import within

ALL = 1000
"""Up to how many choices of sizes all are compared."""

PAIRS = 8
"""Up to how many kinds steps of one are exchanged for steps of another."""

Sizes = tuple[int, ...]
"""A number for each kind."""


def together(fitter: Fitter, kinds: Sequence[Kind], alive: Tensor, dead: Tensor) -> Tensor:
    """The dead units that can go so that every group of a kind goes on with the same size.

    A kind goes down to the least size that all of its groups have the dead for; of more dead units than are
    needed for it, those with the least gain go.

    Args:
        fitter: knows the gains.
        kinds: of groups.
        alive: (units of all groups,), bool.
        dead: (units of all groups,), bool.

    Returns:
        (units of all groups,), bool: some of the dead, or none.
    """
    keep, none = fitter.close(alive & ~(dead & _sections(fitter))), torch.zeros_like(dead)
    if keep is None:
        return none
    parts, kept = fitter.gated.slices(), keep.clone()
    for kind in kinds:
        groups = _standing(fitter, kind, keep)
        left = {name: int((keep & ~dead)[parts[name]].sum()) for name in groups}
        size = kind.up(max((-(-n // kind.of(name)) for name, n in left.items()), default=0))
        for name in groups:
            part = parts[name]
            number = int(keep[part].sum()) - size * kind.of(name)
            going = torch.where((keep & dead)[part], fitter.gain[part], torch.inf).argsort(stable=True)
            kept[part.start + going[: max(number, 0)]] = False
    closed = fitter.close(kept)
    whole = closed is not None and allowed(kinds, fitter.gated.by_group(closed))
    return alive & ~closed if closed is not None and whole else none


def equal(fitter: Fitter, kinds: Sequence[Kind], alive: Tensor) -> Tensor | None:
    """The network at its budget with sizes that are allowed, and the most summed evidence.

    Args:
        fitter: knows the budget.
        kinds: of groups.
        alive: (units of all groups,), bool, closed: where to begin.

    Returns:
        (units of all groups,), bool, closed; None where no choice of sizes meets the budget.
    """
    sections = alive & _sections(fitter)
    best: Tensor | None = None
    if bool(sections.any()):
        sections &= within(fitter, alive)
    while best is None:
        base = fitter.close(alive & (sections | ~_sections(fitter)))
        best = None if base is None else _Choice(fitter, kinds, base).best()
        if not bool(sections.any()):
            break
        sections[torch.where(sections, fitter.gain / fitter.prices, torch.inf).argmin()] = False
    return best


class _Choice:
    """Sizes for the kinds of a network whose sections are decided.

    Args:
        fitter: knows the budget.
        kinds: of groups.
        base: (units of all groups,), bool, closed: what there is.
    """

    def __init__(self, fitter: Fitter, kinds: Sequence[Kind], base: Tensor) -> None:
        self.fitter, self.base = fitter, base
        self.kinds = [kind for kind in kinds if _standing(fitter, kind, base)]
        self.options = [self._options(kind) for kind in self.kinds]
        self._known: dict[Sizes, Tensor | None] = {}
        self._partners: dict[int, list[int]] = {}

    def best(self) -> Tensor | None:
        """The mask of the best sizes that meet the budget."""
        if math.prod(map(len, self.options)) <= ALL:
            choices: Iterator[Sizes] = itertools.product(*self.options)
            return self.cut(max(choices, key=self.worth))
        return self.cut(self._exchanged(self._down()))

    def cut(self, sizes: Sizes) -> Tensor | None:
        """(units of all groups,), bool, closed: the units with the most gain; None above the budget, or where
        no such sizes come out.
        """
        if sizes not in self._known:
            keep = self._top(sizes)
            within_budget = keep is not None and self.fitter.ratio(keep) <= 1
            self._known[sizes] = keep if within_budget else None
        return self._known[sizes]

    def worth(self, sizes: Sizes) -> tuple[float, float]:
        """Summed evidence, and what it costs of the budget; less than anything where that is not met."""
        keep = self.cut(sizes)
        if keep is None:
            return -math.inf, 0.0
        return float(self.fitter.gain[keep].clamp_min(0).sum()), self.fitter.ratio(keep)

    def _options(self, kind: Kind) -> list[int]:
        parts, groups = self.fitter.gated.slices(), _standing(self.fitter, kind, self.base)
        most = min(int(self.base[parts[name]].sum()) // kind.of(name) for name in groups)
        least = max(-(-self.fitter.least(self.base)[name] // kind.of(name)) for name in groups)
        return kind.sizes(least, most) or [most]

    def _top(self, sizes: Sizes) -> Tensor | None:
        """The best units of each group in turn: of features only those whose filters are left, and of each
        of these at least one, or the filter would go too.
        """
        parts, keep = self.fitter.gated.slices(), self.base
        settled = torch.zeros_like(keep)
        for kind, size in zip(self.kinds, sizes, strict=True):
            first = torch.zeros_like(keep)
            while True:
                kept = keep.clone()
                for name in kind.groups:
                    part, number = parts[name], size * kind.of(name)
                    gain = torch.where(keep[part], self.fitter.gain[part], -torch.inf)
                    gain = torch.where(first[part] & keep[part], torch.inf, gain)
                    kept[part.start + gain.argsort(descending=True, stable=True)[number:]] = False
                closed = self.fitter.close(kept)
                lost = None if closed is None else self._readers(kept & ~closed & settled) & keep & ~first
                if lost is None or not bool(lost.any()):
                    break
                first |= lost
            if closed is None:
                return None
            keep = closed
            for name in kind.groups:
                settled[parts[name]] = True
        return keep if allowed(self.kinds, self.fitter.gated.by_group(keep)) else None

    def _readers(self, units: Tensor) -> Tensor:
        """(units of all groups,), bool: the best of each group without which some units are not read."""
        found = torch.zeros_like(units)
        for unit in units.nonzero().flatten().tolist():
            if unit not in self._partners:
                self._partners[unit] = partners(self.fitter, self.base, unit)
            found[self._partners[unit]] = True
        return found

    def _down(self) -> Sizes:
        """Down in steps, the least evidence for its cost first, until the budget is met."""
        at = [len(options) - 1 for options in self.options]
        parts = self.fitter.gated.slices()
        while any(at):
            sizes = tuple(options[i] for options, i in zip(self.options, at, strict=True))
            keep = self._top(sizes)
            if keep is None:  # features that went with their filters: the next size of any kind will do
                number = max(range(len(at)), key=at.__getitem__)
                at[number] -= 1
                continue
            ratios, adds = self.fitter.slopes(keep)
            if float(ratios.max()) <= 1:
                return sizes
            cost = adds[ratios > 1].sum(0)
            rates = []
            for kind, options, i in zip(self.kinds, self.options, at, strict=True):
                step = options[i] - options[i - 1] if i else 0
                lost = saved = 0.0
                for name in kind.groups:
                    part, number = parts[name], step * kind.of(name)
                    worst = torch.where(keep[part], self.fitter.gain[part], torch.inf).argsort()[:number]
                    lost += float(self.fitter.gain[part][worst].clamp_min(0).sum())
                    saved += float(cost[part][worst].sum())
                rates.append(lost / saved if saved > 0 else math.inf)
            number = min((n for n, i in enumerate(at) if i), key=rates.__getitem__)
            far = int(len(self.options[number]) * (1 - 1.2 / float(ratios.max())) / 16)
            at[number] = max(at[number] - max(far, 1), 0)
        return tuple(options[0] for options in self.options)

    def _exchanged(self, sizes: Sizes) -> Sizes:
        """Sizes with steps put back, or exchanged, for as long as that is worth more."""
        while (better := max(self._near(sizes), key=self.worth, default=sizes)) != sizes:
            if self.worth(better) <= self.worth(sizes):
                break
            sizes = better
        return sizes

    def _near(self, sizes: Sizes) -> Iterator[Sizes]:
        at = [options.index(size) for options, size in zip(self.options, sizes, strict=True)]
        moves: list[dict[int, int]] = [{number: 1} for number in range(len(at))]
        if len(at) <= PAIRS:
            pairs = itertools.permutations(range(len(at)), 2)
            moves += [{i: up, j: -down} for i, j in pairs for up in (1, 2, 3) for down in (1, 2, 3)]
        for move in moves:
            moved = [i + move.get(number, 0) for number, i in enumerate(at)]
            if all(0 <= i < len(options) for options, i in zip(self.options, moved, strict=True)):
                yield tuple(options[i] for options, i in zip(self.options, moved, strict=True))


def _sections(fitter: Fitter) -> Tensor:
    """(units of all groups,), bool: units of optional groups."""
    return torch.cat([torch.full((group.size,), group.optional) for group in fitter.gated.groups])


def _standing(fitter: Fitter, kind: Kind, keep: Tensor) -> list[str]:
    """The groups of a kind that did not go with their sections."""
    parts = fitter.gated.slices()
    return [name for name in kind.groups if bool(keep[parts[name]].any())]
