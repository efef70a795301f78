"""A p-value turned round: the level at which it just rejects, and the rows that it needs for that."""

from __future__ import annotations

import numpy as np

from bayesprune.certify.pvalues.protocol import Array, PValue

MOST_ROWS = 2**24


def upper_bound(p_value: PValue, losses: Array, delta: float, accuracy: float = 1e-6) -> float:
    """The lowest level of the mean loss that would have been rejected: an upper confidence bound of the risk.

    Args:
        p_value: the test.
        losses: (rows,), in [0, 1].
        delta: the error rate.
        accuracy: of the answer, which is never too low by more.

    Returns:
        In [0, 1]; 1 where no level is rejected. For one network, named before the rows were seen, its risk lies
        below with probability 1 − delta.

    Example:
        >>> from bayesprune.certify.pvalues import Binomial
        >>> fifty = np.zeros(5000); fifty[:50] = 1
        >>> round(upper_bound(Binomial(), fifty, delta=0.05), 4)
        0.0126
    """
    low, high = 0.0, 1.0
    while high - low > accuracy:
        middle = (low + high) / 2
        if float(p_value(losses, middle)) <= delta:
            high = middle
        else:
            low = middle
    return high


def rows_needed(
    p_value: PValue, alpha: float, delta: float, losses: Array | None = None
) -> int | None:
    """The least number of rows with which a level can be rejected at all, or with losses as they were.

    For the binomial and the Hoeffding–Bentkus p-value without any loss this is ⌈log δ / log(1 − α)⌉.

    Args:
        p_value: the test.
        alpha: the level of the mean loss.
        delta: the error rate.
        losses: (rows,), repeated as often as it takes; by default zeros.

    Returns:
        Rows, or None where more than 16 million would be.

    Example:
        >>> from bayesprune.certify.pvalues import Binomial
        >>> rows_needed(Binomial(), alpha=0.02, delta=0.05)
        149
    """
    pattern = np.zeros(1) if losses is None or not len(losses) else losses
    if float(pattern.mean()) >= alpha:
        return None

    def rejects(rows: int) -> bool:
        return bool(p_value(np.resize(pattern, rows), alpha) <= delta)

    high = 1
    while not rejects(high):
        high *= 2
        if high > MOST_ROWS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if rejects(middle) else (middle, high)
    return high
