"""The cumulative Jensen–Shannon distance of two weighted samples with the same values.

Of Nguyen & Vreeken (2015), *Non-parametric Jensen-Shannon divergence*, bounded to [0, 1] and made symmetric
in the direction of the values as Kallioinen, Paananen, Bürkner & Vehtari (2023, arXiv 2107.14054) have it. It
is relative to the range of the values, which of draws is a matter of chance and grows with their number: here
it ends where less than one draw of 4,000 lies beyond.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
BEYOND = 1 / 4000
"""Probability beyond either end of the range."""


def cumulative_distance(values: Array, first: Array, second: Array) -> float:
    """D of two distributions on the same values, the larger of theirs and of that of negated values.

    Args:
        values: (draws,), in any order.
        first: (draws,), weights that sum to one.
        second: (draws,), others.

    Returns:
        In [0, 1]; 0 where one value has all but 1/4000 of the first on either side.

    Example:
        >>> round(cumulative_distance(np.array([0.0, 1.0]), np.array([0.5, 0.5]), np.array([1.0, 0.0])), 4)
        1.0
    """
    ordered, which = np.unique(values, return_inverse=True)
    if len(ordered) < 2:
        return 0.0
    masses = [np.bincount(which.reshape(-1), weights=w, minlength=len(ordered)) for w in (first, second)]
    below, above = ([m.cumsum()[:-1] for m in masses], [m[::-1].cumsum()[-2::-1] for m in masses])
    inside = (below[0] >= BEYOND) & (above[0] >= BEYOND)  # steps of the distribution functions
    widths = np.diff(ordered)[inside]
    rising, falling = (_distance(widths, *(side[inside] for side in sides)) for sides in (below, above))
    return max(rising, falling)


def distance_of_bits(open_: Array, first: Array, second: Array) -> Array:
    """D of gates, of which each distribution function has one step.

    Args:
        open_: (draws, units), zeros and ones.
        first: (draws,), weights that sum to one.
        second: (draws,), others.

    Returns:
        (units,), in [0, 1].
    """
    theta = first @ open_
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.zeros(open_.shape[1])
        for bits in (open_, 1 - open_):
            p, q = (np.clip(weights @ bits, 0.0, 1.0) for weights in (first, second))
            middle = (p + q) / 2
            nats = _plogp(p, middle) + _plogp(q, middle)
            found = np.maximum(
                found, np.sqrt(np.maximum(np.where(middle > 0, nats / (2 * middle), 0.0), 0.0))
            )
    inside = (theta >= BEYOND) & (1 - theta >= BEYOND)
    return np.where(inside, found / np.sqrt(np.log(2)), 0.0)


# ---- parts


def _distance(widths: Array, p: Array, q: Array) -> float:
    middle = (p + q) / 2
    nats = sum((widths * _plogp(each, middle)).sum() for each in (p, q))
    bound = float((widths * (p + q)).sum())
    return float(np.sqrt(max(nats, 0.0) / np.log(2) / bound)) if bound > 0 else 0.0


def _plogp(p: Array, middle: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * (np.log(p) - np.log(middle)), 0.0)
