"""What every gradient estimator is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Gates = dict[str, Tensor]


@dataclass(frozen=True)
class GateProblem:
    """One batch, seen as a function of the gates.

    Attributes:
        nll: group → gates of shape (rows or 1, units) or (draws, 1 or rows, units); returns the negative
            log-likelihood of every row, (rows,) or (draws, rows), in nats, differentiable in weights and gates.
        probs: (units,), q(z = 1) of the living units of all groups, one after the other.
        log_odds: (units,), the same as log-odds.
        units: group → number of living units, in order.
        rows: rows of the batch.
        generator: source of randomness on the device of ``probs``.
    """

    nll: Callable[[Mapping[str, Tensor]], Tensor]
    probs: Tensor
    log_odds: Tensor
    units: Mapping[str, int]
    rows: int
    generator: torch.Generator | None = None

    def split(self, flat: Tensor) -> Gates:
        """(..., units of all groups) → group → (..., units)."""
        return dict(zip(self.units, flat.split(list(self.units.values()), dim=-1), strict=True))

    def uniform(self) -> Tensor:
        """(rows, units), draws from [0, 1)."""
        shape = (self.rows, len(self.probs))
        return torch.rand(shape, generator=self.generator, dtype=self.probs.dtype, device=self.probs.device)

    def draw(self, probs: Tensor | None = None) -> Tensor:
        """(rows, units), one hard draw of every gate for every row, as numbers.

        The comparison is made on 32 random bits, which resolves probabilities to 2⁻³², finer than float32 draws from
        ``torch.rand`` (2⁻²⁴), and costs two thirds as much.
        """
        probs = self.probs if probs is None else probs
        count = self.rows * len(probs)
        bits = torch.empty((count + 1) // 2, dtype=torch.int64, device=probs.device)
        bits.random_(-(2**63), None, generator=self.generator)
        limit = (probs.double() * 2.0**32 - 2.0**31).clamp_(-(2.0**31), 2.0**31 - 1).to(torch.int32)
        return bits.view(torch.int32)[:count].view(self.rows, len(probs)).lt(limit).to(probs.dtype)


@dataclass(frozen=True)
class Estimate:
    """One batch's answer.

    Attributes:
        nll: scalar, mean negative log-likelihood of a row under the drawn gates, nats, detached.
        gate_gradient: (units,), estimate of ∂E[mean NLL]/∂q(z=1) for the living units; None when not asked for.
    """

    nll: Tensor
    gate_gradient: Tensor | None


class Estimator(Protocol):
    """Runs the backward pass of one batch: weight gradients into ``.grad``, the gates' returned."""

    def __call__(self, problem: GateProblem, want_gates: bool = True) -> Estimate:
        """Estimate value and gradients.

        Args:
            problem: the batch.
            want_gates: False on steps that leave the gates alone, which saves the backward pass to the inputs.

        Returns:
            The estimate; the weights' gradients have been accumulated.
        """
        ...
