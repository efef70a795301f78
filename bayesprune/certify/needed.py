"""Which alpha, or how many rows, the first candidate that failed would have needed."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesprune.certify.losses import Loss, Scores
from bayesprune.certify.pvalues import PValue
from bayesprune.certify.pvalues.bounds import MOST_ROWS, least_rows, lowest_level


def needed(scores: Scores, loss: Loss, alpha: float, level: float, p_value: PValue) -> dict[str, Any]:
    """What would have been enough for these losses.

    It tells how to plan the next calibration, on fresh rows. An alpha that is chosen by looking at the rows
    that it is then tested on guarantees nothing.

    Args:
        scores: of the candidate, on the rows that it was tested on.
        loss: what is bounded.
        alpha: asked for.
        level: what its p-value had to undercut.
        p_value: the test.

    Returns:
        ``alpha``: the lowest that would have been certified, rounded up; None where none below 1.
        ``rows``: how many with as high a risk would be enough for the alpha asked for; None where four
            million
        are not, as when its risk is not below alpha.
    """
    lowest = lowest_level(lambda a: loss.p_value(scores, a, p_value), level)
    risk = loss.risk(scores)
    return {
        "alpha": float(np.ceil(lowest * 1e5) / 1e5) if lowest < 1 else None,
        "rows": _rows(scores, loss, alpha, level, p_value) if risk < alpha else None,
    }


def _rows(scores: Scores, loss: Loss, alpha: float, level: float, p_value: PValue) -> int | None:
    """Rows, if more of them look like these: the same ones, again and again."""
    order = np.random.default_rng(0).permutation(len(scores.values))

    def p(rows: int) -> float:
        return loss.p_value(scores.on(np.resize(order, rows)), alpha, p_value)

    found = least_rows(lambda times: p(times * len(order)), level, MOST_ROWS // len(order))
    if found is None:
        return None
    low, high = (found - 1) * len(order), found * len(order)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if p(middle) <= level else (middle, high)
    return high
