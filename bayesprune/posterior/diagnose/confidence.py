"""Is a classifier as often right as it is confident? Errors of calibration, held against chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 10
FALSE_ALARM = 0.01
"""How often a calibrated predictor is called miscalibrated, at most, all fits taken together."""
SMALL = 0.02
"""An error that many rows can tell from chance, and that is small all the same."""
REPLICATES, ABOVE = 1999, 5
"""Sets of labels that are drawn, at least; and how many of them must lie above the limit."""
UNIFORMS_AT_ONCE = 4_000_000
ROUNDING = 1e-6
"""Errors on few rows take few values, and one that equals the limit is within it."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class AgainstChance:
    """A calibration error beside what a calibrated predictor of the same confidences has on as many rows.

    Attributes:
        error: the expected calibration error that was observed.
        limit: the quantile of a calibrated predictor's error that it should not pass.
        level: of that quantile, such as 0.99.
        mean: of a calibrated predictor's error, which is above zero by chance alone.
        rows: how many.
    """

    error: float
    limit: float
    level: float
    mean: float
    rows: int

    @property
    def holds(self) -> bool:
        """Whether the error is within chance, or small."""
        return self.error <= max(self.limit, SMALL) + ROUNDING

    @property
    def threshold(self) -> str:
        """What it is held against, in words."""
        chance = f"the {100 * self.level:.4g}% quantile of a calibrated predictor on {self.rows:,} rows"
        if self.limit >= SMALL:
            return f"≤ {self.limit:.3g}, {chance}"
        return f"≤ {SMALL}, taken as small; {chance} is {self.limit:.2g}"


def calibration_error(probs: Array, labels: Array, bins: int = BINS) -> float:
    """Expected calibration error: |accuracy − confidence|, weighted by rows, in bins of confidence.

    Args:
        probs: (rows, classes).
        labels: (rows,), class numbers.
        bins: of equal width.
    """
    confidence, right = probs.max(-1), probs.argmax(-1) == labels
    which = _bins(confidence, bins)
    gaps = [
        abs(right[which == b].mean() - confidence[which == b].mean()) * (which == b).mean()
        for b in np.unique(which)
    ]
    return float(sum(gaps))


def chance_errors(confidence: Array, replicates: int, seed: int = 0, bins: int = BINS) -> Array:
    r"""Expected calibration errors of a predictor that is calibrated: labels are drawn from what it predicts.

    A label is the likeliest class with the probability that is stated for it, and of the others nothing
    matters to the error, so right answers are drawn, :math:`r_n \sim \mathrm{Bern}(c_n)`.

    Args:
        confidence: (rows,), probability of the likeliest class.
        replicates: sets of labels.
        seed: of the draws.
        bins: of equal width.

    Returns:
        (replicates,).
    """
    which = _bins(confidence, bins)
    order = np.argsort(which, kind="stable")
    stated = confidence[order].astype(np.float32)
    starts = np.unique(which[order], return_index=True)[1]
    expected = np.add.reduceat(confidence[order].astype(np.float64), starts)
    generator, found = np.random.default_rng(seed), np.empty(replicates)
    step = max(1, UNIFORMS_AT_ONCE // len(confidence))
    for start in range(0, replicates, step):
        count = min(step, replicates - start)
        right = generator.random((count, len(stated)), dtype=np.float32) < stated
        sums = np.add.reduceat(right, starts, axis=1, dtype=np.int64)
        found[start : start + count] = np.abs(sums - expected).sum(1) / len(confidence)
    return found


def against_chance(
    probs: Array, labels: Array, false_alarm: float = FALSE_ALARM, seed: int = 0
) -> AgainstChance:
    """The calibration error of some predictions, and what it would be by chance.

    The test is exact: the limit is such that of a calibrated predictor's error and the drawn ones, all
    exchangeable, the first is beyond it with probability ``false_alarm`` at most, whatever the rows.

    Args:
        probs: (rows, classes).
        labels: (rows,), class numbers.
        false_alarm: how often a calibrated predictor may be beyond the limit.
        seed: of the draws.

    Returns:
        Error, limit, and how they came about.

    Source:
        J. Bröcker & L. Smith (2007), Increasing the reliability of reliability diagrams (labels drawn from
        the predictions); J. Vaicenavicius et al., arXiv 1902.06977 (as a test of classifiers); literature.

    Example:
        >>> probs = np.full((100, 2), 0.5)
        >>> found = against_chance(probs, np.arange(100) % 2)
        >>> found.error, found.holds, against_chance(probs, np.zeros(100)).holds
        (0.0, True, False)
    """
    replicates = max(REPLICATES, int(np.ceil(ABOVE / false_alarm)) - 1)
    null = np.sort(chance_errors(probs.max(-1), replicates, seed))
    beyond = int(np.floor(false_alarm * (replicates + 1)))
    limit, error = float(null[-beyond]), calibration_error(probs, labels)
    return AgainstChance(error, limit, 1 - false_alarm, float(null.mean()), len(probs))


def brier(probs: Array, labels: Array) -> float:
    """Mean over rows of Σ_c (p_c − 1[y = c])², between 0 and 2.

    Args:
        probs: (rows, classes).
        labels: (rows,), class numbers.
    """
    return float(np.square(probs - np.eye(probs.shape[-1])[labels]).sum(-1).mean())


def _bins(confidence: Array, bins: int) -> Array:
    return np.asarray(np.minimum((confidence * bins).astype(int), bins - 1))
