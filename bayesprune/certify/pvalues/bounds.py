"""A p-value turned round: the level at which it just rejects, and the rows that it needs for that."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bayesprune.certify.pvalues.protocol import Array, PValue

MOST_ROWS = 2**22
ACCURACY = 1e-6


def lowest_level(p_value: Callable[[float], float], delta: float) -> float:
    """The lowest level at which a hypothesis is rejected.

    Args:
        p_value: level in (0, 1) → p-value, which falls as the level rises.
        delta: the error rate.

    Returns:
        In (0, 1], to 1e-6 and not below; 1 where no level is rejected.
    """
    low, high = 0.0, 1.0
    while high - low > ACCURACY:
        middle = (low + high) / 2
        low, high = (low, middle) if p_value(middle) <= delta else (middle, high)
    return high


def least_rows(p_value: Callable[[int], float], delta: float, most: int = MOST_ROWS) -> int | None:
    """The least number of rows with which a hypothesis is rejected.

    Args:
        p_value: rows → p-value, which falls as they become more.
        delta: the error rate.
        most: where to give up.

    Returns:
        Rows, or None where so many are too few.
    """
    high = 1
    while p_value(high) > delta:
        high *= 2
        if high > most:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if p_value(middle) <= delta else (middle, high)
    return high


def upper_bound(p_value: PValue, losses: Array, delta: float) -> float:
    """An upper confidence bound of the mean loss: the lowest level that is rejected.

    Args:
        p_value: the test.
        losses: (rows,), in [0, 1].
        delta: the error rate.

    Returns:
        In (0, 1]. The risk of one network, named before the rows were seen, lies below with probability
        1 − delta.

    Example:
        >>> from bayesprune.certify.pvalues import Binomial
        >>> fifty = np.zeros(5000); fifty[:50] = 1
        >>> round(upper_bound(Binomial(), fifty, delta=0.05), 4)
        0.0126
    """
    return lowest_level(lambda level: float(p_value(losses, level)), delta)


def rows_needed(p_value: PValue, alpha: float, delta: float) -> int | None:
    """The least number of rows with which a level can be rejected at all: when not one has a loss.

    For the binomial and the Hoeffding–Bentkus p-value this is ⌈log δ / log(1 − α)⌉.

    Args:
        p_value: the test.
        alpha: the level of the mean loss.
        delta: the error rate.

    Returns:
        Rows, or None where four million are too few.

    Example:
        >>> from bayesprune.certify.pvalues import Binomial
        >>> rows_needed(Binomial(), alpha=0.02, delta=0.05)
        149
    """
    return least_rows(lambda rows: float(p_value(np.zeros(rows), alpha)), delta)
