"""Mirror descent on gates: the natural gradient in the log-odds is the plain one in the probability."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesprune.gated.links import Links
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


@torch.no_grad()
def link_step_(
    settings: GateSteps, links: Links, probs: Tensor, gradient: tuple[Tensor, Tensor], price: Tensor
) -> None:
    r"""Move the links of a group's gates by the natural gradient, as their log-odds are moved.

    P(z_i = 1 | …) is θ_i + c (z_j − θ_j) + …, so that the Fisher information in c is about
    :math:`θ_j (1 - θ_j) / θ_i (1 - θ_i)`, and that in the loading of a sign :math:`1 / θ_i (1 - θ_i)`:

    .. math:: c \leftarrow c - θ_i (1 - θ_i) \, \mathrm{clip}\big(η v / (θ_j (1 - θ_j)\, \mathrm{price})\big)

    Args:
        settings: learning rate η, momentum, clip.
        links: changed in place; ends within what the probabilities allow.
        probs: (units,), θ now, zero for units that were removed.
        gradient: ∂J/∂c (lags, units) and ∂J/∂λ (rank, units), nats.
        price: (units,), nats, positive.
    """
    own = probs * (1 - probs)
    before = links.before(probs.device)
    looked = [before.look(own, number) for number in range(len(links.coupling))]
    across = torch.stack(looked) if looked else own.new_zeros(0, len(own))
    for part, velocity, slope, measure in (
        (links.coupling, links.coupling_velocity, gradient[0], across),
        (links.loading, links.loading_velocity, gradient[1], own.new_ones(len(links.loading), 1)),
    ):
        velocity.mul_(settings.momentum).add_((1 - settings.momentum) * slope)
        change = settings.learning_rate * velocity / (measure.clamp_min(1e-6) * price)
        part.sub_(own * change.clamp_(-settings.clip, settings.clip))
    links.shrink_(probs)
