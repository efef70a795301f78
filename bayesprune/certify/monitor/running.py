"""A lower bound of a stream's running risk, at all times at once, whatever the risk does on the way."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from bayesprune.certify.pvalues.protocol import Array

RATES = np.geomspace(0.002, 0.95, 32)
STEPS = 40
"""Halvings of [0, 1]: the bound is exact to 1e-12."""


def moments(total: float, rows: int, losses: Array) -> tuple[Array, Array]:
    r"""(..., rows) each: sums of losses, and of the squares of what each row added to what was foreseen.

    .. math:: S_t = \sum_{i \le t} L_i, \qquad V_t = \sum_{i \le t} (L_i - \hat L_{i-1})^2, \qquad
              \hat L_i = \frac{\tfrac12 + S_i}{1 + i}

    Args:
        total: S before these rows.
        rows: how many there were before.
        losses: (..., rows), in [0, 1].

    Returns:
        S, and what V grows by from these rows on.
    """
    sums = total + np.cumsum(losses, -1)
    seen = np.arange(rows + 1, rows + losses.shape[-1] + 1)
    foreseen = (0.5 + sums - losses) / seen
    return sums, np.cumsum((losses - foreseen) ** 2, -1)


def lower_bound(total: Array, squares: Array, rows: Array, delta: float) -> Array:
    r"""Lower bounds of :math:`\bar\mu_t = \frac1t \sum_{i \le t} E[L_i \mid \text{rows before}]`.

    .. math:: \sum_k \tfrac1{32} \exp\big( \lambda_k (S_t - t\,m) - \psi(\lambda_k) V_t \big) = 1/\delta,
              \qquad \psi(\lambda) = -\log(1 - \lambda) - \lambda

    The m that solves it lies below :math:`\bar\mu_t` for all t at once with probability 1 − δ: with
    :math:`\xi_i = L_i - \hat L_{i-1} \ge -1` it holds that :math:`e^{\lambda \xi - \psi(\lambda) \xi^2} \le 1
    + \lambda \xi`, so that each term is at :math:`\bar\mu_t` a supermartingale that starts at 1. Nothing is
    assumed of how the risk moves; bets on a level assume that it never passed it.

    Args:
        total: (...,), S.
        squares: (...,), V.
        rows: (...,), t.
        delta: the error rate.

    Returns:
        (...,), in [0, 1]; 0 where nothing is known.

    Source:
        S. Howard, A. Ramdas, J. McAuliffe & J. Sekhon (2021), Annals of Statistics 49, arXiv 1810.08240,
        theorem 4; running risks of deployed models: A. Podkopaev & A. Ramdas (2021), arXiv 2110.06177.
    """
    low, high = np.zeros(np.shape(total)), np.ones(np.shape(total))
    for _ in range(STEPS):
        middle = (low + high) / 2
        refuted = log_evidence(total, squares, rows, middle) >= -np.log(delta)
        low, high = np.where(refuted, middle, low), np.where(refuted, high, middle)
    return np.asarray(low)


def log_evidence(total: Array, squares: Array, rows: Array, mean: Array) -> Array:
    """(...,), nats, against the running risk being at most a number: the mixture in ``lower_bound``.

    Args:
        total: (...,), S.
        squares: (...,), V.
        rows: (...,), t.
        mean: (...,), the number.
    """
    cost = (-np.log1p(-RATES) - RATES) * np.asarray(squares)[..., None]
    gain = RATES * np.asarray(total - rows * mean)[..., None]
    return np.asarray(logsumexp(gain - cost, -1) - np.log(len(RATES)))
