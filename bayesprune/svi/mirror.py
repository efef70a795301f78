"""Mirror descent on gates: the natural gradient in the log-odds is the plain one in the probability."""

from __future__ import annotations

from torch import Tensor

from bayesprune.svi.settings import GateSteps


def mirror_step(
    settings: GateSteps, velocity: Tensor, log_odds: Tensor, gradient: Tensor, price: Tensor
) -> tuple[Tensor, Tensor]:
    """ρ ← ρ − clip(η · v / price), v ← β v + (1 − β) ∂J/∂θ, with ρ = logit θ.

    For a Bernoulli the Fisher information in ρ is θ(1 − θ) = dθ/dρ, so F⁻¹ ∂J/∂ρ = ∂J/∂θ (Khan & Rue 2023).
    Steps are measured in the group's own price: a unit without evidence falls by η whatever its price, so one
    learning rate serves filters at hundreds of nats and pixels at one. Where J is stationary does not depend
    on it. Prices under a nat count as one.

    Args:
        settings: learning rate η, momentum β, clip and bound.
        velocity: (units,), v, nats.
        log_odds: (units,), ρ.
        gradient: (units,), ∂J/∂θ, nats.
        price: (units,), nats, positive, equal within a group.

    Returns:
        The next velocity and log-odds.

    Example:
        >>> import torch
        >>> settings, nats = GateSteps(learning_rate=0.1, momentum=0.0), torch.tensor([20.0, -10.0])
        >>> zero, price = torch.zeros(2), torch.tensor([20.0, 20.0])
        >>> velocity, log_odds = mirror_step(settings, zero, zero, nats, price)
        >>> log_odds
        tensor([-0.1000,  0.0500])
    """
    velocity = settings.momentum * velocity + (1 - settings.momentum) * gradient
    change = (settings.learning_rate * velocity / price).clamp_(-settings.clip, settings.clip)
    return velocity, (log_odds - change).clamp_(-settings.bound, settings.bound)
