"""How good a network is on rows it has not seen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bayesprune.gated import GatedModel
from bayesprune.likelihoods import Likelihood
from bayesprune.svi.batches import Train


@dataclass(frozen=True)
class Quality:
    """Means over rows.

    Attributes:
        score: the likelihood's score: an error in percent for classes, RMSE for real targets.
        name: what the score is.
        nll: mean negative log-likelihood of a row, nats.
    """

    score: float
    name: str
    nll: float


def evaluate(
    network: GatedModel | nn.Module, rows: Train, likelihood: Likelihood | None = None, batch_size: int = 1000
) -> Quality:
    """Score a network, or a gated model with every gate at the nearer vertex.

    Args:
        network: a gated model, or a plain network together with its likelihood.
        rows: (inputs, targets), tensors, or a DataLoader of such pairs.
        likelihood: needed for a plain network.
        batch_size: rows at a time.

    Returns:
        Means over the rows.
    """
    gates: dict[str, Tensor] | None = None
    if isinstance(network, GatedModel):
        likelihood, gates = network.likelihood, _vertex(network)
    if likelihood is None:
        raise TypeError("evaluate(network, rows, likelihood): a plain network needs the likelihood named.")
    device = next(network.parameters()).device
    batches = (
        rows
        if isinstance(rows, DataLoader)
        else zip(rows[0].split(batch_size), rows[1].split(batch_size), strict=True)
    )
    score, nll, count = 0.0, 0.0, 0
    was_training = network.training
    network.eval()
    with torch.no_grad():
        for x, y in batches:
            x, y = x.to(device), y.to(device)
            outputs = network.network(x, gates) if isinstance(network, GatedModel) else network(x)
            score += float(likelihood.score(outputs, y))
            nll += float(likelihood.nll(outputs, y).sum())
            count += len(x)
    network.train(was_training)
    return Quality(likelihood.mean_score(score, count), likelihood.score_name, nll / max(count, 1))


def _vertex(gated: GatedModel) -> dict[str, Tensor]:
    """Group → (living units,), 1 where q(z = 1) > ½."""
    alive = gated.by_group(gated.alive)
    probs = gated.by_group(gated.inclusion_prob().detach())
    return {name: (probs[name][alive[name]] > 0.5).to(probs[name].dtype) for name in probs}
