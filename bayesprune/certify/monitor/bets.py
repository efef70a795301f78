"""Capital that is bet, row by row, against a risk being at most a level; for streams without an end."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from bayesprune.certify.pvalues.betting import LARGEST_STAKE
from bayesprune.certify.pvalues.protocol import Array

STAKES = 24
SMALLEST_STAKE = 1 / 16
"""Of the level: the stake that grows best where the risk is a sixteenth above its level."""


def stakes_of(level: float) -> Array:
    r"""(24,), stakes :math:`\nu_k` from a sixteenth, in proportion, up to ¾ of the level's inverse.

    Args:
        level: of the mean loss, in (0, 1).
    """
    return np.geomspace(min(SMALLEST_STAKE * level, LARGEST_STAKE / 2), LARGEST_STAKE, STAKES) / level


def first_capital() -> Array:
    """(24,), nats: half of a capital of 1, in equal parts; the other half is cash, invested by and by."""
    return np.full(STAKES, np.log(0.5 / STAKES))


def advance(log_capital: Array, rows: int, losses: Array, level: float) -> Array:
    r"""What each stake's capital has become after each of some rows.

    .. math:: C_{k,t} = \Big( C_{k,t-1} + \frac{1}{2\,t\,(t+1)\,24} \Big) \big( 1 + \nu_k (L_t - \alpha) \big)

    A stake is constant; a mixture of them grows as the best does, but for the logarithm of their number. At
    every row a little of the cash goes in, so that bets begin anew all the time: what was lost while the risk
    was low is not all that is left when it rises.

    Where each row's mean loss, given the rows before, is at most the level, the sum of all capitals and the
    cash is a non-negative supermartingale that starts at 1: it ever reaches 1/δ with probability δ at most
    (Ville).

    Args:
        log_capital: (..., 24), nats, before the rows.
        rows: how many there were before.
        losses: (..., rows), in [0, 1].
        level: α, of the mean loss, in (0, 1).

    Returns:
        (..., rows, 24), nats.

    Source:
        I. Waudby-Smith & A. Ramdas (2024), JRSS B 86, arXiv 2010.09686; mixtures of stakes are theirs, too.
    """
    count = losses.shape[-1]
    steps = np.log1p(stakes_of(level) * (losses[..., None] - level))  # (..., rows, stakes)
    growth = np.cumsum(steps, -2)
    row = np.arange(rows + 1, rows + count + 1, dtype=np.float64)
    moved = -np.log(2 * STAKES * row * (row + 1))[:, None] - (growth - steps)  # what went in, at its start
    invested = np.logaddexp.accumulate(
        np.concatenate([np.broadcast_to(log_capital, moved[..., :1, :].shape), moved], -2), -2
    )
    return np.asarray(invested[..., 1:, :] + growth)


def log_wealth(log_capital: Array, rows: Array | int) -> Array:
    """(...,), nats: all capitals, and the cash that is left after so many rows.

    Args:
        log_capital: (..., 24), nats.
        rows: how many were bet on, (...,) or one number.
    """
    cash = -np.log(2 * (np.asarray(rows, dtype=np.float64) + 1))
    return np.asarray(np.logaddexp(logsumexp(log_capital, -1), cash))
