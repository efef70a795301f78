"""The flattening hyper-prior with a price of its own for every unit."""

from __future__ import annotations

import pyro
import torch
from torch import Tensor

from bayesprune.priors.checks import checked
from bayesprune.priors.flattening import FlatteningDistribution
from bayesprune.priors.gates import log_odds
from bayesprune.priors.price import point_mass
from bayesprune.structure.groups import Group


def sample_logits(group: Group, price: Tensor) -> Tensor:
    """Sample 'pi/<group>' from its flattening distributions.

    Args:
        group: the group.
        price: (group.size,), nats for each unit, positive.

    Returns:
        (..., group.size), log-odds of the prior inclusion probabilities.
    """
    hyper = FlatteningDistribution(price.to(torch.get_default_dtype())).to_event(1)  # type: ignore[no-untyped-call]
    return log_odds(pyro.sample(f"pi/{group.name}", hyper))


def sample_best(group: Group, inclusion_prob: Tensor, price: Tensor) -> None:
    """Put 'pi/<group>' at π*, logit π* = logit θ - price: a point mass, detached.

    Args:
        group: the group.
        inclusion_prob: (group.size,), θ; 0 for removed units.
        price: (group.size,), nats for each unit.
    """
    theta = checked(group, inclusion_prob).detach()
    best = torch.sigmoid(theta.log() - torch.log1p(-theta) - price.double())
    pyro.sample(f"pi/{group.name}", point_mass(best, like=inclusion_prob))


def flat_penalty(group: Group, inclusion_prob: Tensor, price: Tensor) -> Tensor:
    r"""The prior side of the ELBO at π*: Σ_i price_i θ_i + Σ_i (log price_i - log(e^price_i - 1)).

    Args:
        group: the group.
        inclusion_prob: (group.size,), θ; 0 for removed units.
        price: (group.size,), nats for each unit, positive.

    Returns:
        Scalar, nats, linear in θ with the prices as its slopes.
    """
    theta, price = checked(group, inclusion_prob), price.double()
    log_peak = price + torch.log(-torch.expm1(-price) / price)  # log((γ - 1) / log γ)
    return (theta @ price - log_peak.sum()).to(inclusion_prob.dtype)
