"""Prices from cost during a fit: they follow the network as it shrinks, and a budget sees to its end."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from bayesprune.errors import BudgetWarning
from bayesprune.gated import GatedModel
from bayesprune.priors import CostGates
from bayesprune.priors.budget import check_feasible
from bayesprune.priors.cost_gates import KINDS
from bayesprune.rows import Inputs
from bayesprune.structure import ExpectedCost
from bayesprune.structure.kinds import allowed
from bayesprune.svi.climb import Terms
from bayesprune.svi.dual import LEAD, Ascent
from bayesprune.svi.equal import equal, together
from bayesprune.svi.fitter import WITHIN, Fitter
from bayesprune.svi.limits import Meeting, calibrate_, follow_
from bayesprune.svi.schedule import Schedule
from bayesprune.svi.trim import trim
from bayesprune.svi.within import within

SURE = 1e9
"""Nats of a section that is not for sale, until it is measured what it saves."""

SLACK, NEAR = 1.5, 3.0
"""How far above its measured limits a network stays until gates are decided, and from how many budgets on it
is measured whether it does. Hardware computes in blocks: one unit may cost, or save, a third of the time, and
what is left must still allow for a choice."""


class Pricing:
    """What a fit does about prices that follow from cost; all of its state is in the prior's buffers.

    Args:
        gated: the model, whose prior is a ``CostGates``; its prices and multipliers are moved.
        prior: that prior.
        schedule: of the fit.
    """

    def __init__(self, gated: GatedModel, prior: CostGates, schedule: Schedule) -> None:
        self.gated, self.prior, self.recipe = gated, prior, schedule.recipe
        self.gates = gates = schedule.gates
        ramp = schedule.recipe.ramp * schedule.steps / gates.every
        lead = LEAD / (gates.learning_rate * ramp) if ramp else 1.0
        self.ascent = Ascent(prior, gates.momentum, lead)
        self._costs: ExpectedCost | None = None
        self.least = self.recipe.shrink.least
        self._rows: Inputs | None = None
        self._begun = False  # what the buffer says, without asking the device at every step
        self.held: Tensor | None = None  # (units of all groups,), which are not for sale
        self.gains: Tensor | None = None  # (units of all groups,), nats that these save, once measured
        self._free: set[bytes] = set()  # choices whose sizes could not be held
        if prior.budget is not None:
            counted = len(KINDS)
            check_feasible(gated.network, prior.dense, prior.budget[:counted], self.least, prior.kinds)

    @classmethod
    def of(cls, gated: GatedModel, schedule: Schedule) -> Pricing | None:
        """For models whose prices follow from cost; None for all others."""
        return cls(gated, gated.prior, schedule) if isinstance(gated.prior, CostGates) else None

    @property
    def has_budget(self) -> bool:
        """Whether multipliers are sought; else they are given."""
        return self.prior.budget is not None

    def describe(self) -> dict[str, Any]:
        """What was asked for, as plain values, by which runs are told apart."""
        budget = None if self.prior.budget is None else self.prior.budget[: len(KINDS)].tolist()
        measured = self.prior.measured
        kinds = [[*kind.groups, kind.step] for kind in self.prior.kinds]
        return {
            "budget": [None if share != share else share for share in budget or []],
            "first": [float(value) for value in self.ascent.first.exp()],
            **({"kinds": kinds} if kinds else {}),
            **({"measured": [*measured.kinds, *measured.limits, measured.batch]} if measured else {}),
        }

    def begin_(self, rows: Inputs) -> None:
        """Before a step: measure what limits in milliseconds and megabytes need, unless that was done.

        Args:
            rows: (some, ...), inputs of the step: the last ones are what networks are timed on.

        Raises:
            PriorError: a limit that the smallest network does not meet.

        Warns:
            BudgetWarning: a limit that the dense network meets.
        """
        if self.prior.measured is None:
            return
        self._rows = rows
        if not self._begun and not bool(self.prior.begun):
            calibrate_(self.gated, self.prior, self.least, rows)
            self.prior.begun.fill_(True)
        self._begun = True

    def prior_weight(self, ramped: float) -> float:
        """Factor on the gates' prior: a budget ramps its aim instead."""
        return 1.0 if self.has_budget else ramped

    def before_gate_step_(self, progress: float, velocity: Tensor) -> None:
        """Move the multipliers, where there is a budget, and set every price anew.

        Args:
            progress: share of the ramp that lies behind.
            velocity: (units of all groups,), smoothed gradient of the log-odds, nats.
        """
        probs, prior = self.gated.inclusion_prob().detach().double(), self.prior
        if self._costs is None or self._costs.slots is not self.gated.network.slots:  # units were removed
            self._costs = ExpectedCost(prior.costed(self.gated.network), self.gated.log_odds.device)
        momentum = self.gates.momentum
        if self.has_budget and int(prior.moves) > 0:
            evidence = self._evidence(velocity)
            self.ascent.ascend_(self._costs, evidence, probs, progress)
        prior.reprice_(self._costs, probs)
        prior.count_(momentum)

    def reached(self) -> bool:
        """Whether the living network meets the budget, so that gates may be decided early."""
        if not self.has_budget:
            return True
        fitter = self._fitter(torch.zeros_like(self.prior.prices), self._slack())
        return fitter.ratio(self.gated.alive.cpu()) <= 1 + WITHIN

    def spare(self, dead: Tensor, velocity: Tensor) -> Tensor:
        """The dead units that may go now: what lives stays above the budget until gates are decided, and is
        of the sizes that the budget allows.

        Args:
            dead: (units of all groups,), bool.
            velocity: (units of all groups,), smoothed gradient of the log-odds, nats.
        """
        if not self.has_budget or not bool(dead.any()):
            return dead
        fitter, alive, kinds = self._fitter(velocity, self._slack()), self.gated.alive.cpu(), self.prior.kinds
        going = together(fitter, kinds, alive, dead.cpu()) if kinds else dead.cpu()
        closed = fitter.close(alive & ~going)
        if closed is None or fitter.ratio(closed) < 1:
            going = alive & ~trim(fitter, alive, dead.cpu(), high=1.0, low=1.0, strict=True)
            going = together(fitter, kinds, alive, going) if kinds else going
        return (going if self._may_go(fitter, going, alive) else torch.zeros_like(going)).to(dead.device)

    def _may_go(self, fitter: Fitter, going: Tensor, alive: Tensor) -> bool:
        """Whether what stays is above its limits as measured too, which is looked at from not too far off.

        Args:
            fitter: knows the budgets.
            going: (units of all groups,), bool.
            alive: (units of all groups,), bool.
        """
        stays = fitter.close(alive & ~going) if bool(going.any()) else None
        if self.prior.measured is None or stays is None or fitter.ratio(stays) > NEAR:
            return True
        above = follow_(self.gated, self.prior, stays, SLACK, self._rows)
        return above or fitter.counted(stays) >= 1

    def terms(self, keep: Tensor) -> Terms:
        """Under which terms masks are compared beside a decided one.

        Prices that follow from cost charge λ · cost of the network that a mask leaves. A budget is paid for:
        within it the evidence alone decides, and what is left shall cost as much, to ``WITHIN``, and be of
        the sizes that are allowed. What is measured may change with every unit, and hardware computes in
        blocks: under such a limit groups keep their sizes.

        Args:
            keep: (units of all groups,), bool, on the CPU, the decided mask.
        """
        gated, prior = self.gated, self.prior
        if not self.has_budget:
            device, lambdas = prior.dense.device, prior.log_multipliers.exp()
            costs = ExpectedCost(prior.costed(gated.network), device)
            return Terms(
                lambda mask: -float(lambdas @ prior.shares(costs, mask.to(device).double())),
                lambda mask: True,
            )
        sizes = gated.by_group(keep)
        if prior.measured is not None:
            count = {name: int(mask.sum()) for name, mask in sizes.items()}
            return Terms(
                lambda mask: 0.0,
                lambda mask: {n: int(part.sum()) for n, part in gated.by_group(mask).items()} == count,
                exchange=True,
            )
        fitter = self._fitter(torch.zeros_like(prior.prices))
        least, most = min(fitter.ratio(keep), 1 - WITHIN), max(fitter.ratio(keep), 1.0)
        kinds = prior.kinds if allowed(prior.kinds, sizes) else ()

        def allows(mask: Tensor) -> bool:
            return least <= fitter.ratio(mask) <= most and allowed(kinds, gated.by_group(mask))

        return Terms(lambda mask: 0.0, allows, exchange=True)

    def surplus(self, velocity: Tensor) -> Tensor:
        """The units that have to go for the budget to be met, when gates are decided.

        Args:
            velocity: (units of all groups,), smoothed gradient of the log-odds, nats.

        Returns:
            (units of all groups,), bool.

        Warns:
            BudgetWarning: the network ends more than 2 % away from its budget, 5 % of what is measured; both
                are named. Or no sizes that are allowed meet it, and it ends with others.
        """
        self._free.clear()
        if self.prior.measured is None:
            keep, fitter = self._decided(velocity)
            ratio = fitter.ratio(keep)
            if not 1 - WITHIN <= ratio <= 1:
                self._warn(ratio)
        else:
            meeting = Meeting(
                self.gated, self.prior, lambda scale: self._decided(velocity, scale), self._rows
            )
            keep = meeting.best()
            fitter = self._fitter(velocity)
            if meeting.kinds and not meeting.close(meeting.taken(keep), fitter, keep):
                self._warn_of_measured(meeting.taken(keep), meeting.values(keep), fitter.counted(keep))
            elif not meeting.kinds and fitter.counted(keep) > 0 and fitter.counted(keep) < 1 - WITHIN:
                self._warn(fitter.counted(keep))
        if keep.numpy().tobytes() in self._free:
            self._warn_of_sizes()
        return (self.gated.alive.cpu() & ~keep).to(self.gated.alive.device)

    def _decided(self, velocity: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Fitter]:
        """(units of all groups,), the units to keep, and what knows the budgets.

        Args:
            velocity: (units of all groups,), smoothed gradient of the log-odds, nats.
            scale: (costs,), factors on the budgets.
        """
        fitter, alive, kinds = self._fitter(velocity, scale), self.gated.alive.cpu(), self.prior.kinds
        keep = equal(fitter, kinds, alive) if kinds else None
        if keep is None:
            keep = within(fitter, alive)
            self._free.update([keep.numpy().tobytes()] if kinds else [])
        return keep, fitter

    def _fitter(self, velocity: Tensor, scale: Tensor | None = None) -> Fitter:
        return Fitter(self.gated, self.prior, self._evidence(velocity).cpu(), self.least, scale)

    def _evidence(self, velocity: Tensor) -> Tensor:
        """(units of all groups,), nats that each unit saves."""
        evidence = self.prior.evidence(velocity, self.gates.momentum)
        if self.held is None:
            return evidence
        return torch.where(self.held, SURE if self.gains is None else self.gains, evidence)

    def _slack(self) -> Tensor | None:
        """(costs,), factors on budgets: what is measured in the end stays further above till then."""
        if self.prior.measured is None:
            return None
        scale = torch.ones(len(self.prior.names)).double()
        scale[len(KINDS) :] = SLACK
        return scale

    def _warn(self, ratio: float) -> None:
        what = "steps of sizes are" if self.prior.kinds else "units are"
        warnings.warn(
            f"Budget {self.prior.told()}: the network ends at {100 * ratio:.1f} % of it, because its {what} "
            f"too large to come closer than {100 * WITHIN:g} % from below. Ask for another share, or gate "
            "more groups (exclude= lists fewer).",
            BudgetWarning,
            stacklevel=2,
        )

    def _warn_of_measured(self, taken: list[float], values: list[float], counted: float) -> None:
        measured = self.prior.measured
        assert measured is not None
        ends = ", ".join(
            f"{measured.told(kind, value)} ({100 * share:.1f} %)"
            for kind, value, share in zip(measured.kinds, values, taken, strict=True)
        )
        ends += f", and at {100 * counted:.1f} % of what is counted" * (counted > 0)
        why = "larger" if max(taken) > 1 else "another"
        warnings.warn(
            f"Budget {self.prior.told()}: the network ends at {ends}, as measured, since no choice of the "
            f"units that were left came closer. Ask for {why} limit, gate more groups (exclude= lists "
            "fewer), or give multiple_of=8 where hardware computes in blocks.",
            BudgetWarning,
            stacklevel=2,
        )

    def _warn_of_sizes(self) -> None:
        warnings.warn(
            "Budget: none of the sizes that uniform= and multiple_of= allow was found to meet it with the "
            "units that are left, so sizes are not held. Lower multiple_of=, or ask for a larger share.",
            BudgetWarning,
            stacklevel=3,
        )
