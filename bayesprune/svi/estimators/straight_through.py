"""Straight-through: draw hard gates for every row, differentiate as if they were continuous."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bayesprune.svi.estimators.problem import Estimate, Factor, GateProblem, Gates, gradient_of


@dataclass(frozen=True)
class StraightThrough:
    """Forward z ~ Bernoulli(θ), backward dz/dθ = 1, with a fresh draw for every row (Bengio et al. 2013).

    ∂E[L]/∂θ_u ≈ mean over rows of ∂L/∂z_u. Of low variance, and biased by what L bends between z_u = 0 and 1.
    """

    def __call__(self, problem: GateProblem, want_gates: bool = True) -> Estimate:
        """See ``Estimator``."""
        gates, loss = _forward(problem, want_gates)
        drawn = dict(problem.drawn)

        def gradient(factor: Factor) -> Tensor:
            return problem.gradient([gradient_of(z, factor) for z in gates.values()], drawn)

        return Estimate(loss, gradient if want_gates else None)


@dataclass(frozen=True)
class SecondOrderStraightThrough:
    """Straight-through by the trapezoid rule, exact where the loss is quadratic in a gate.

    ∂E[L]/∂θ_u = E[L | z_u = 1] − E[L | z_u = 0] ≈ ½ (E[∂L/∂z_u | z_u = 1] + E[∂L/∂z_u | z_u = 0])

    Every row's ∂L/∂z_u is weighted by 1/(2 q(z_u)), so that both ends of the gate count alike however
    probable they are, while the plain estimator loses the evidence for a unit as θ_u → 1, because the weights
    adapt to an open gate. The weighting is that of Gregor et al. (2014, DARN); its second-order accuracy that
    of Heun's rule (Liu et al. 2023, "Bridging Discrete and Backpropagation").

    Args:
        cap: the largest weight; above it variance is traded for bias again.
    """

    cap: float = 20.0

    def __call__(self, problem: GateProblem, want_gates: bool = True) -> Estimate:
        """See ``Estimator``."""
        gates, loss = _forward(problem, want_gates)
        drawn = dict(problem.drawn)

        def gradient(factor: Factor) -> Tensor:
            slopes = [gradient_of(z, factor) for z in gates.values()]
            if problem.linked:
                return problem.gradient(self._weighted(problem, slopes, gates, drawn), drawn)
            total = torch.cat([slope.sum(0) for slope in slopes])
            pairs = zip(slopes, gates.values(), strict=True)
            opened = torch.cat([(slope * z.detach()).sum(0) for slope, z in pairs])
            if_open = (0.5 / problem.probs).clamp_max(self.cap)
            if_shut = (0.5 / (1 - problem.probs)).clamp_max(self.cap)
            return opened * if_open + (total - opened) * if_shut

        return Estimate(loss, gradient if want_gates else None)

    def _weighted(
        self, problem: GateProblem, slopes: list[Tensor], gates: Gates, drawn: Mapping[str, Any]
    ) -> list[Tensor]:
        """Of each group, (rows, units), each row's slope by its weight 1/(2 q(z_i | those before it))."""
        probs, found = problem.split(problem.probs), []
        for slope, (name, z) in zip(slopes, gates.items(), strict=True):
            open_ = probs[name]
            if name in problem.linked:
                chances = problem.linked[name].conditional(z.detach()).probs  # (rows, 2^rank, units)
                open_ = chances[torch.arange(len(z), device=z.device), drawn[name][1]]
            weight = torch.where(z.detach() > 0, 0.5 / open_, 0.5 / (1 - open_))
            found.append(slope * weight.clamp_max(self.cap))
        return found


@dataclass(frozen=True)
class CurvedStraightThrough:
    """Straight-through, corrected for what the loss bends between the two ends of a gate.

    With ℓ a row's negative log-likelihood, Taylor's rule from the end that was drawn gives
    ℓ(1) − ℓ(0) ≈ ℓ′(z) + (½ − z) ℓ″(z), and ℓ″ ≈ min((ℓ′)², |ℓ′|): the gate's empirical Fisher information
    (Martens 2020, "New insights and perspectives on the natural gradient method", section 11), but never more
    than the curvature that has the minimum at the other end. So the correction is at most half of ℓ′: for a
    row that the draw has thrown far off, the empirical Fisher alone would turn the sign. The mean over rows
    estimates ∂E[L]/∂θ.

    The plain estimator loses sight of a unit as θ → 1, because the weights adapt to an open gate until
    ℓ′(1) ≈ 0: the evidence for the unit is then all in the curvature. This one sees it, at hardly more
    variance than the plain one's.
    """

    def __call__(self, problem: GateProblem, want_gates: bool = True) -> Estimate:
        """See ``Estimator``."""
        gates, loss = _forward(problem, want_gates)
        drawn = dict(problem.drawn)

        def gradient(factor: Factor) -> Tensor:
            return problem.gradient([_curved(z, problem.rows, factor) for z in gates.values()], drawn)

        return Estimate(loss, gradient if want_gates else None)


def _curved(gate: Tensor, rows: int, factor: Factor) -> Tensor:
    """(rows, units), s · (1 + (½ − z) · clip(rows · s, ±1)), with s = ∂(mean loss)/∂z = ℓ′/rows."""
    slope = gradient_of(gate, factor)
    bend = (slope * rows).clamp_(-1.0, 1.0).mul_(0.5 - gate.detach())
    return torch.addcmul(slope, slope, bend)


def _forward(problem: GateProblem, want_gates: bool) -> tuple[Gates, Tensor]:
    """Draw gates and run the loss forward; after the backward pass the gates hold their slopes."""
    gates, factors = (problem.draw(), None) if want_gates else problem.draw_with_noise()
    for gate in gates.values():
        gate.requires_grad_(want_gates)
    return gates, problem.nll(gates, factors).mean()
