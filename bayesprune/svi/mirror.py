"""Mirror descent on Bernoulli gates: the natural gradient in the log-odds is the plain gradient in the probability."""

from __future__ import annotations

from torch import Tensor

from bayesprune.svi.settings import GateSteps


def mirror_step(settings: GateSteps, velocity: Tensor, log_odds: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """ρ ← ρ − clip(η · v), v ← β v + (1 − β) ∂J/∂θ, with ρ = logit θ.

    For a Bernoulli the Fisher information in ρ is θ(1 − θ) = dθ/dρ, so F⁻¹ ∂J/∂ρ = ∂J/∂θ (Khan & Rue 2023).

    Args:
        settings: learning rate η, momentum β, clip and bound.
        velocity: (units,), v, nats.
        log_odds: (units,), ρ.
        gradient: (units,), ∂J/∂θ, nats.

    Returns:
        The next velocity and log-odds.

    Example:
        >>> import torch
        >>> velocity, log_odds = mirror_step(GateSteps(momentum=0.0), torch.zeros(2), torch.zeros(2), torch.tensor([10.0, -10.0]))
        >>> log_odds
        tensor([-0.0300,  0.0300])
    """
    velocity = settings.momentum * velocity + (1 - settings.momentum) * gradient
    change = (settings.learning_rate * velocity).clamp_(-settings.clip, settings.clip)
    return velocity, (log_odds - change).clamp_(-settings.bound, settings.bound)
