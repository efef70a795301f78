"""Dual ascent: how the multipliers of a budget move, and what they aim at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesprune.priors import CostGates

DAMPING = 1.0
"""Nats of log λ for a change of the error by one nat: λ answers at once, before the error has added up."""

RISE = 8.0
"""Nats that log λ gains over a ramp at an error of one nat."""

LOWEST = 5.0
"""How many nats log λ may fall below its first value, where a constraint is slack."""


@dataclass(frozen=True)
class Ascent:
    """The settings of one fit's ascent.

    Args:
        steps: gate steps over which the aim sinks.
        first: (2,), log λ to begin with.
    """

    steps: int
    first: Tensor

    def ascend_(self, prior: CostGates, shares: Tensor, progress: float) -> None:
        r"""log λ ← log λ + κ e + d (e - e'), with e = log(expected share / aim) in [-1, 1], e' the last one.

        The aim sinks from the cost at the start to the budget on a geometric path, so that λ is found on the
        way down: aim = start^(1 - progress) · budget^progress. The step is multiplicative (exponentiated
        gradient ascent on the dual), so λ stays positive whatever its scale; where a constraint is slack,
        e < 0 takes its price away.

        Args:
            prior: its ``log_multipliers`` and ``error`` are moved.
            shares: (2,), expected MACs and parameters, of the dense ones.
            progress: 0 where the ramp begins, 1 where it has ended.
        """
        assert prior.budget is not None
        aim = prior.start ** (1 - progress) * prior.budget**progress
        error = (shares / aim).log().clamp(-1.0, 1.0)
        error = torch.where(prior.budget.isnan(), 0.0, error)  # NaN ** 0 is one: ask the budget itself
        change = RISE / self.steps * error + DAMPING * (error - prior.error)
        prior.log_multipliers.copy_(torch.maximum(prior.log_multipliers + change, self.first - LOWEST))
        prior.error.copy_(error)
