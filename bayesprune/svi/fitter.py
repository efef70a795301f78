"""Taking units out, or putting them back, one by one, until a budget is met: counts are exact."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bayesprune.gated import GatedModel
from bayesprune.priors import CostGates
from bayesprune.priors.cost_gates import KINDS
from bayesprune.structure import ExpectedCost
from bayesprune.structure.classes import Classes, Ints
from bayesprune.structure.groups import close_over, least_units
from bayesprune.structure.readers import Readers

WITHIN = 0.02
"""How far under its budget a network may end, as a share of the budget."""

TINY = 1e-200
"""Gains below it are zero, or lose digits when they are divided."""


class Fitter:
    """Removes units one by one until a budget is met, on counts that are exact.

    Args:
        gated: the model; only looked at.
        prior: its prior, which has a budget.
        gain: (units of all groups,), nats that each unit saves, on the CPU.
        least: units that every group keeps.
        scale: (costs,), factors on the budgets; 1 by default.
    """

    def __init__(
        self, gated: GatedModel, prior: CostGates, gain: Tensor, least: int, scale: Tensor | None = None
    ) -> None:
        self.gated, self.prior, self.gain, self.prices = gated, prior, gain, prior.prices.cpu()
        self._network = prior.costed(gated.network)
        self._costs = ExpectedCost(self._network)
        # A cost without a budget has no limit: infinity, since NaN would spoil the other's slopes too.
        self.limits = prior.limits(scale).cpu()
        self._floor = least
        self._orders: dict[int, Ints] = {}
        self._known: dict[bytes, dict[str, int]] = {}
        self.floors = self.least(gated.alive.cpu())

    def ratio(self, keep: Tensor) -> float:
        """Cost over budget, the largest where there are several, of the network cut to ``keep``.

        Args:
            keep: (units of all groups,), bool, as ``close`` gives it.
        """
        return float(self._ratios(keep.double()).max())

    def counted(self, keep: Tensor) -> float:
        """The same of what is counted alone: MACs and parameters."""
        return float(self._ratios(keep.double())[: len(KINDS)].max())

    def measured(self, keep: Tensor) -> list[float]:
        """The same of the models of what is measured: of each kind."""
        assert self.prior.measured is not None
        more = self._ratios(keep.double())[len(KINDS) :]
        return self.prior.measured.of_model(more).tolist()

    def close(self, keep: Tensor) -> Tensor | None:
        """``keep`` without the units that nobody would read any more; None where a group would starve."""
        alive = close_over(self.gated.network.slots, self.gated.by_group(keep))
        floors = self.least(keep)
        if any(int(mask.sum()) < floors[name] for name, mask in alive.items()):
            return None
        return torch.cat(list(alive.values()))

    def least(self, keep: Tensor) -> dict[str, int]:
        """Group → units that it must keep, with the sections that ``keep`` has."""
        parts, kept = self.gated.by_group(self.gated.alive.cpu()), self.gated.by_group(keep)
        parts |= {g.name: kept[g.name] for g in self.gated.groups if g.optional}
        key = b"".join(parts[g.name].numpy().tobytes() for g in self.gated.groups if g.optional)
        if key not in self._known:
            gated = self.gated
            self._known[key] = least_units(gated.groups, gated.network.slots, parts, self._floor)
        return self._known[key]

    @cached_property
    def classes(self) -> Classes | None:
        """Units that stand in for each other; None where they are of no help."""
        sizes = self.gain.abs()
        orderly = bool((sizes.isfinite() & ((sizes == 0) | (sizes > TINY))).all())
        return Classes.of(self._network) if orderly else None

    @cached_property
    def readers(self) -> Readers:
        """Which classes follow when one is empty."""
        assert self.classes is not None
        return Readers(self.gated.network, self.classes.labels)

    def order(self, sign: int) -> Ints:
        """All units, class by class, the least gain first, or the most (−1); of equal ones the first unit."""
        assert self.classes is not None
        if sign not in self._orders:
            self._orders[sign] = np.lexsort((sign * self.gain.numpy(), self.classes.labels))
        return self._orders[sign]

    def members(self, of: int) -> Ints:
        """The units of a class, in any order."""
        assert self.classes is not None
        end = int(self.classes.sizes[: of + 1].sum())
        return self.order(1)[end - int(self.classes.sizes[of]) : end]

    def _ratios(self, keep: Tensor) -> Tensor:
        expected = self._costs(self.gated.by_group(keep))
        counted = torch.stack([expected.macs, expected.parameters])
        return torch.cat([counted, expected.more]) / self.limits

    def slopes(self, keep: Tensor) -> tuple[Tensor, Tensor]:
        """(costs,) over budgets, and (costs, units) what each unit adds to them."""
        with torch.enable_grad():
            theta = keep.double().requires_grad_()
            ratios = self._ratios(theta)
            slopes = [
                torch.autograd.grad(ratio, theta, retain_graph=True)[0]
                if bool(limit.isfinite())
                else torch.zeros_like(theta)
                for ratio, limit in zip(ratios, self.limits, strict=True)
            ]
        return ratios.detach(), torch.stack(slopes)
