"""REINFORCE: the score function, with the other rows of the batch as baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from bayesprune.svi.estimators.problem import Estimate, GateProblem


@dataclass(frozen=True)
class Reinforce:
    """∂E[L]/∂(log-odds) = E[(L − baseline)(z − θ)], unbiased (Williams 1992); where gates are linked, by the
    slopes of their joint log-probability.

    The baseline of a row is the mean loss of the other rows, which does not depend on that row's gates
    (leave-one-out; Kool, van Hoof & Welling 2019).
    """

    of_rows: ClassVar[bool] = True

    def __call__(self, problem: GateProblem, want_gates: bool = True) -> Estimate:
        """See ``Estimator``."""
        gates = problem.draw()
        losses = problem.nll(gates)
        if not want_gates:
            return Estimate(losses.mean(), None)
        value = losses.detach()
        others = (value.sum() - value) / max(problem.rows - 1, 1)
        drawn = torch.cat(list(gates.values()), dim=1)
        if problem.linked:
            leaves = problem.leaves()
            score = (value - others) @ problem.log_prob(drawn, leaves) / problem.rows
            slopes = torch.autograd.grad(score, leaves, allow_unused=True, materialize_grads=True)
            gradient = torch.cat([slope.flatten() for slope in slopes])
            return Estimate(losses.mean(), lambda factor: gradient)
        gradient = ((value - others).unsqueeze(1) * (drawn - problem.probs)).mean(0) / _slope(problem)
        return Estimate(losses.mean(), lambda factor: gradient)


@dataclass(frozen=True)
class ARM:
    """∂E[L]/∂(log-odds) = E[(L(1[u > σ(−ρ)]) − L(1[u < σ(ρ)]))(u − ½)], unbiased (Yin & Zhou 2019).

    ρ are the log-odds; u ~ U(0, 1) is shared by the two antithetic passes: twice the forward work of others.
    """

    of_rows: ClassVar[bool] = True

    def __call__(self, problem: GateProblem, want_gates: bool = True) -> Estimate:
        """See ``Estimator``."""
        uniform = problem.uniform()
        second = (uniform < problem.probs).to(uniform.dtype)
        losses = problem.nll(problem.split(second))
        if not want_gates:
            return Estimate(losses.mean(), None)
        first = (uniform > 1 - problem.probs).to(uniform.dtype)
        with torch.no_grad():
            difference = problem.nll(problem.split(first)) - losses.detach()
        gradient = (difference.unsqueeze(1) * (uniform - 0.5)).mean(0) / _slope(problem)
        return Estimate(losses.mean(), lambda factor: gradient)


def _slope(problem: GateProblem) -> torch.Tensor:
    """(units,), dθ/d(log-odds) = θ(1 − θ)."""
    return (problem.probs * (1 - problem.probs)).clamp_min(1e-7)
