"""Concrete: gates relaxed to the open interval by logistic noise and a temperature."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesprune.svi.estimators.problem import Estimate, Factor, GateProblem, gradient_of


@dataclass(frozen=True)
class Concrete:
    """z = σ((logit θ + logit u) / temperature), u ~ U(0, 1).

    Maddison, Mnih & Teh (2017); Jang, Gu & Poole (2017).

    Args:
        temperature: towards 0 the gates become hard and the gradient's variance grows.
        hard: round the gates in the forward pass and keep the relaxed gradient (Gumbel straight-through), as
            spike-and-slab node selection does (Jantre, Bhattacharya & Maiti, with temperature 0.5).
    """

    temperature: float = 0.5
    hard: bool = True

    def __call__(self, problem: GateProblem, want_gates: bool = True) -> Estimate:
        """See ``Estimator``."""
        log_odds = problem.log_odds.detach().clone().requires_grad_(want_gates)
        noise = torch.logit(problem.uniform(), eps=1e-7)
        relaxed = torch.sigmoid((log_odds + noise) / self.temperature)
        gates = relaxed + ((relaxed > 0.5).to(relaxed.dtype) - relaxed).detach() if self.hard else relaxed
        loss = problem.nll(problem.split(gates)).mean()

        def gradient(factor: Factor) -> Tensor:
            slope = (problem.probs * (1 - problem.probs)).clamp_min(1e-7)  # dθ/d(log-odds)
            return gradient_of(log_odds, factor) / slope

        return Estimate(loss, gradient if want_gates else None)
