"""Do intervals hold what they say? The share of targets within, held against draws of the predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

LEVEL = 0.9
SMALL = 0.02
"""A difference that many rows can tell from chance, and that is small all the same."""
NUMBERS_AT_ONCE = 4_000_000

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Held:
    """What central intervals hold, and what they would by chance if predictions were right.

    Attributes:
        share: of the targets that were observed.
        expected: mean share over sets of targets that are drawn from the predictions; the level, but for
            targets that are whole numbers.
        p_value: twice the share of the sets, the observed one among them, that hold as many or more, or as
            few or fewer.
        rows: how many.
        level: of the intervals.
    """

    share: float
    expected: float
    p_value: float
    rows: int
    level: float = LEVEL

    def holds(self, false_alarm: float) -> bool:
        """Whether the difference is within chance, or small."""
        return self.p_value > false_alarm or abs(self.share - self.expected) <= SMALL

    def threshold(self, false_alarm: float) -> str:
        """What it is held against, in words."""
        return (
            f"{self.expected:.2g} of right predictions; p = {self.p_value:.2g} on {self.rows:,} rows, not "
            f"≤ {false_alarm:.2g}, unless within {SMALL}"
        )


def held(drawn: Array, observed: Array, level: float = LEVEL) -> Held:
    r"""The share of targets within central predictive intervals, and its p-value.

    If predictions are right, the observed targets and those of S draws are exchangeable, all rows of a set
    together, however rows depend on each other through weights and masks that a draw shares. So each set is
    ranked among all S + 1, row by row, and the share of its rows in the central part,
    :math:`|2 u - 1| \le` level, compared with that of the others: a test of level α convicts right
    predictions with probability α at most. It cannot convict with fewer than 2/α − 1 draws.

    Args:
        drawn: (draws, rows, ...), targets drawn from the predictions, each set from one network.
        observed: (rows, ...), the targets.
        level: of the intervals.

    Returns:
        The share, and how probable one as far off is.

    Source:
        D. Rubin (1984), Bayesianly justifiable and relevant frequency calculations (posterior predictive
        checks), here of rows that were not learnt from; literature.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=(1000, 200))
        >>> found = held(noise[1:], noise[0])
        >>> bool(held(noise[1:], noise[0]).p_value > 0.05), held(noise[1:] / 2, noise[0]).holds(0.01)
        (True, False)
    """
    sets = np.concatenate([observed.reshape(1, -1), drawn.reshape(len(drawn), -1)])
    count, numbers = sets.shape
    inside = np.zeros(count)
    step = max(1, NUMBERS_AT_ONCE // count)
    for start in range(0, numbers, step):
        u = (rankdata(sets[:, start : start + step], axis=0) - 0.5) / count
        inside += (np.abs(2 * u - 1) <= level).sum(1)
    shares = inside / numbers
    tail = min(float((inside <= inside[0]).mean()), float((inside >= inside[0]).mean()))
    return Held(float(shares[0]), float(shares.mean()), min(1.0, 2 * tail), len(observed), level)
