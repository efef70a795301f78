"""Error against size: which settings of a method are worth having, and what it errs at a size of choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np


def front(points: Mapping[float, tuple[float, float]]) -> list[float]:
    """Settings that no other one beats in both size and error, the smallest network first.

    Args:
        points: setting → size, and error by which settings are compared.

    Example:
        >>> front({1.0: (40.0, 2.0), 2.0: (20.0, 1.9), 4.0: (5.0, 3.0)})
        [4.0, 2.0]
    """
    found: list[float] = []
    best = math.inf
    for value in sorted(points, key=lambda v: points[v]):
        if points[value][1] < best:
            best = points[value][1]
            found.append(value)
    return found


def error_at(size: float, points: Sequence[tuple[float, float]]) -> float | None:
    """What a method errs at a size: between two of its networks on a line over the size's logarithm.

    Beyond its largest network it is that one's error, since a smaller network will do; below its smallest one
    nothing is known.

    Args:
        size: > 0.
        points: (size, error) of its networks, in any order.

    Returns:
        The error, or None.

    Example:
        >>> error_at(20.0, [(10.0, 3.0), (40.0, 2.0)]), error_at(5.0, [(10.0, 3.0)])
        (2.5, None)
    """
    at = sorted(points)
    if not at or size < at[0][0]:
        return None
    return float(np.interp(math.log(size), [math.log(s) for s, _ in at], [error for _, error in at]))
