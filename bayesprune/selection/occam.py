"""Occam: the nats that a unit's weights cost by being free to take other values, by Laplace's method."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bayesprune.likelihoods.curvature import in_outputs, root_of
from bayesprune.selection.gains import Loss
from bayesprune.selection.magnitude import columns_of
from bayesprune.selection.masks import Scores
from bayesprune.structure.running import evaluating

MOST_ROWS = 200
"""On which the curvature is looked at, drawn at random: it is a mean, and its logarithm is what counts."""


def occam(loss: Loss, scale_of: Callable[[str], float]) -> Scores:
    r"""Half the logarithm of prior over posterior variance, over the weights that read a unit.

    .. math:: \mathrm{occam}_u = \tfrac12 \sum_{w \in u} \log(1 + s_w^2 h_w), \qquad
              h_w = \frac{N}{n} \sum_n \big(J_n^\top \Lambda_n J_n\big)_{ww}

    with J the slopes of a row's outputs and Λ the curvature of its negative log-likelihood in them
    (Gauss–Newton), at the weights as they are, all units open. The weights of a unit count one by one: exact
    where their outputs are independent, and an upper bound elsewhere (Hadamard's inequality).

    Args:
        loss: rows, targets and likelihood; N is its rows.
        scale_of: weight → s, the standard deviation of its prior.

    Returns:
        group → (size,), nats, for the groups that weights read.
    """
    squares = _squared_slopes(loss)
    nats = {
        name: 0.5 * torch.log1p(scale_of(name) ** 2 * loss.likelihood.rows * value)
        for name, value in squares.items()
    }
    return columns_of(loss.subject, nats)


def _squared_slopes(loss: Loss) -> dict[str, Tensor]:
    """Weight → (its shape), the mean over rows of the Gauss–Newton curvature: a backward pass each output."""
    network, likelihood = loss.subject.network, loss.likelihood
    weights = {name: w.clone().requires_grad_(True) for name, w in loss.subject.weights().items()}
    like = next(iter(weights.values()))
    gates = {
        name: torch.ones(int(alive.sum()), dtype=like.dtype, device=like.device)
        for name, alive in loss.subject.alive.items()
    }
    order = torch.randperm(len(loss.rows), generator=torch.Generator().manual_seed(0))[:MOST_ROWS]
    totals = {name: torch.zeros(w.shape, dtype=torch.float64) for name, w in weights.items()}
    with evaluating(network), torch.enable_grad():
        for row in order.tolist():
            x, y = loss.rows[row : row + 1].to(like.device), loss.targets[row : row + 1].to(like.device)
            returned = torch.func.functional_call(network, weights, (x, gates))
            outputs = likelihood.part(returned, 1)
            root = root_of(in_outputs(likelihood, outputs, y)[1])[0]  # (o, o)
            for line in root[root.abs().amax(1) > 0]:
                slopes = torch.autograd.grad(
                    (line * outputs.flatten()).sum(),
                    list(weights.values()),
                    retain_graph=True,
                    allow_unused=True,
                )
                for total, slope in zip(totals.values(), slopes, strict=True):
                    if slope is not None:
                        total += slope.double().cpu().square()
    return {name: total / len(order) for name, total in totals.items()}
