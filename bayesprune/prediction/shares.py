"""How much each of several fits counts in a prediction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bayesprune.errors import PosteriorError
from bayesprune.gated import GatedModel
from bayesprune.svi.result import FitResult

MOST_STEPS = 20_000
CLOSE = 1e-10
"""A gain of the mean log score, in nats a row, below which nothing is gained any more."""


def by_elbo(fits: Sequence[FitResult | GatedModel]) -> Tensor:
    """In proportion to exp(ELBO) at the last epoch.

    Args:
        fits: one or more.

    Returns:
        (fits,), double.

    Raises:
        PosteriorError: one has no ELBO.
    """
    elbos = [fit.history[-1].elbo if isinstance(fit, FitResult) and fit.history else None for fit in fits]
    lacking = [n for n, elbo in enumerate(elbos) if elbo is None or elbo != elbo]
    if lacking:
        raise PosteriorError(
            f"weights='elbo': fit {lacking[0]} has no ELBO, since no fit() of ours has recorded one. Take "
            "'equal', or 'stacking' with rows=."
        )
    return torch.softmax(torch.tensor(elbos, dtype=torch.double), 0)


def stacked(scores: Tensor) -> Tensor:
    r"""Weights under which a mixture predicts some rows best.

    .. math:: \max_\omega \sum_n \log \sum_k \omega_k p_{kn}

    The sum is concave; each step of EM multiplies :math:`\omega_k` by the mean over rows of its share of the
    mixture, and never lowers it.

    Args:
        scores: (fits, rows), log p of the targets under each fit, nats.

    Returns:
        (fits,), double.

    Example:
        >>> stacked(torch.log(torch.tensor([[0.8, 0.8, 0.2], [0.2, 0.2, 0.8]]))).round(decimals=4)
        tensor([0.7778, 0.2222], dtype=torch.float64)
    """
    scores = scores.double()
    shares = torch.full((len(scores),), 1 / len(scores), dtype=torch.double)
    before = -torch.inf
    for _ in range(MOST_STEPS):
        joint = scores + shares.log().unsqueeze(1)
        total = torch.logsumexp(joint, 0)  # (rows,)
        now = float(total.mean())
        if now - before < CLOSE:
            break
        before, shares = now, (joint - total).exp().mean(1)
        shares = shares / shares.sum()
    return shares
