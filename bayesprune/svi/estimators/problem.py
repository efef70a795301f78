"""What every gradient estimator is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bayesprune.svi.bits import random_words

Gates = dict[str, Tensor]


@dataclass(frozen=True)
class GateProblem:
    """One batch, seen as a function of the gates.

    Attributes:
        nll: group → gates of shape (rows or 1, units) or (draws, 1 or rows, units); returns the negative
            log-likelihood of every row, (rows,) or (draws, rows), in nats, differentiable in weights and
            gates.
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

    def draw(self) -> Gates:
        """Group → (rows, units), one hard draw of every gate for every row, as numbers.

        Random bits are compared sixteen at a time with q(z = 1) · 2¹⁶, rounded at random to a whole number
        once a batch and unit. So every row's gates are independent and have their probabilities exactly, to
        the float's precision; only different rows share the rounding, by at most 2⁻¹⁶. Half the cost of
        ``torch.rand``.
        """
        words = random_words(self.rows * len(self.probs), self.probs.device, self.generator)
        dither = torch.empty_like(self.probs).uniform_(generator=self.generator)
        limits = (self.probs * 2.0**16 + dither).floor_().clamp_(0.0, 2.0**16 - 1)
        limits = limits.sub_(2.0**15).to(torch.int16)
        gates, start, first = {}, 0, 0
        for name, units in self.units.items():
            block = words[start : start + self.rows * units].view(self.rows, units)
            gates[name] = torch.empty(block.shape, dtype=self.probs.dtype, device=block.device)
            torch.lt(
                block, limits[first : first + units], out=gates[name]
            )  # compares into floats in one pass
            start, first = start + self.rows * units, first + units
        return gates


@dataclass(frozen=True)
class Estimate:
    """One batch's answer.

    Attributes:
        nll: scalar, mean negative log-likelihood of a row under the drawn gates, nats, detached.
        gate_gradient: (units,), estimate of ∂E[mean NLL]/∂q(z=1) for the living units; None when not asked
            for.
    """

    nll: Tensor
    gate_gradient: Tensor | None


class Estimator(Protocol):
    """Runs the backward pass of one batch: weight gradients into ``.grad``, the gates' returned."""

    def __call__(self, problem: GateProblem, want_gates: bool = True) -> Estimate:
        """Estimate value and gradients.

        Args:
            problem: the batch.
            want_gates: False on steps that leave the gates alone, which saves the backward pass to the
                inputs.

        Returns:
            The estimate; the weights' gradients have been accumulated.
        """
        ...
