"""Enumeration: the exact expectation over all gate configurations, for a dozen gates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesprune.errors import SettingsError
from bayesprune.svi.estimators.problem import Estimate, Factor, GateProblem, gradient_of

MOST_GATES = 12


@dataclass(frozen=True)
class Enumeration:
    """The oracle: E[L] = Σ_z q(z) L(z) over all 2^K configurations of K ≤ 12 gates, with exact gradients."""

    def __call__(self, problem: GateProblem, want_gates: bool = True) -> Estimate:
        """See ``Estimator``.

        Raises:
            SettingsError: more than a dozen living gates.
        """
        configurations = all_configurations(len(problem.probs)).to(problem.probs)  # (2^K, K)
        losses = problem.nll(problem.split(configurations.unsqueeze(1))).mean(-1)  # (2^K,)
        if problem.linked:
            leaves = problem.leaves()
            loss = problem.log_prob(configurations, leaves).exp() @ losses

            def gradient(factor: Factor) -> Tensor:
                return torch.cat([gradient_of(leaf, factor).flatten() for leaf in leaves])

            return Estimate(loss, gradient if want_gates else None)
        probs = problem.probs.detach().clone().requires_grad_(want_gates)
        weights = torch.where(configurations > 0, probs, 1 - probs).prod(-1)
        loss = weights @ losses
        return Estimate(loss, (lambda factor: gradient_of(probs, factor)) if want_gates else None)


def all_configurations(gates: int) -> Tensor:
    """Every configuration of some gates.

    Args:
        gates: how many, at most 12.

    Returns:
        (2^gates, gates), zeros and ones, on the CPU.

    Raises:
        SettingsError: too many.

    Example:
        >>> all_configurations(2).tolist()
        [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    if gates > MOST_GATES:
        raise SettingsError(
            f"{gates} gates have 2^{gates} configurations: enumeration is for at most {MOST_GATES}. "
            "Use another estimator, or exclude= groups."
        )
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0], device="cpu")] * gates).reshape(2**gates, gates)
