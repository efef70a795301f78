"""Straight-through: draw hard gates for every row, differentiate as if they were continuous."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bayesprune.svi.estimators.problem import Estimate, GateProblem


@dataclass(frozen=True)
class StraightThrough:
    """Forward z ~ Bernoulli(θ), backward dz/dθ = 1, with a fresh draw for every row (Bengio et al. 2013).

    ∂E[L]/∂θ_u ≈ mean over rows of ∂L/∂z_u. Of low variance, and biased by what L bends between z_u = 0 and 1.
    """

    def __call__(self, problem: GateProblem, want_gates: bool = True) -> Estimate:
        """See ``Estimator``."""
        gates = {name: z.requires_grad_(want_gates) for name, z in problem.split(problem.draw()).items()}
        loss = problem.nll(gates).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        if not want_gates:
            return Estimate(loss.detach(), None)
        sums = [z.grad.sum(0) if z.grad is not None else z.new_zeros(z.shape[-1]) for z in gates.values()]
        return Estimate(loss.detach(), torch.cat(sums))


@dataclass(frozen=True)
class SecondOrderStraightThrough:
    """Straight-through by the trapezoid rule: ∂E[L]/∂θ_u = E[L|z_u=1] − E[L|z_u=0] ≈ ½ (E[∂L/∂z_u|1] + E[∂L/∂z_u|0]).

    Every row's ∂L/∂z_u is weighted by 1/(2 q(z_u)), so that both ends of the gate count alike however probable they
    are: exact where L is quadratic in a gate, while the plain estimator loses the evidence for a unit as θ_u → 1,
    because the weights adapt to an open gate. The weighting is that of Gregor et al. (2014, DARN); its second-order
    accuracy that of Heun's rule (Liu et al. 2023, "Bridging Discrete and Backpropagation").

    Args:
        cap: the largest weight; above it variance is traded for bias again.
    """

    cap: float = 20.0

    def __call__(self, problem: GateProblem, want_gates: bool = True) -> Estimate:
        """See ``Estimator``."""
        draw = problem.draw()
        gates = {name: z.requires_grad_(want_gates) for name, z in problem.split(draw).items()}
        loss = problem.nll(gates).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        if not want_gates:
            return Estimate(loss.detach(), None)
        if_open = (0.5 / problem.probs).clamp_max(self.cap)
        if_shut = (0.5 / (1 - problem.probs)).clamp_max(self.cap)
        slopes = torch.cat([z.grad if z.grad is not None else torch.zeros_like(z) for z in gates.values()], dim=1)
        # slope · (z · if_open + (1 − z) · if_shut), summed over rows
        opened = torch.einsum("ru,ru->u", slopes, draw.detach())
        return Estimate(loss.detach(), opened * (if_open - if_shut) + slopes.sum(0) * if_shut)
