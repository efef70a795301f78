"""Reliability: of the rows that the network is 80 % sure of, are 80 % right?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy.stats import beta

from bayesprune.errors import PosteriorError
from bayesprune.posterior.diagnose.confidence import BINS, calibration_error
from bayesprune.posterior.plots.colours import REFERENCE, label, mark_style
from bayesprune.posterior.plots.figures import legend, panel
from bayesprune.posterior.plots.source import Array, Source, source_of

REMEDY = "make the draws with to_arviz(rows=(x, y), observed=True), on rows that were not learnt from."


def plot_reliability(
    source: Any, bins: int = BINS, ax: Axes | None = None, labels: Sequence[str] | None = None
) -> Axes:
    """Share of right answers against the confidence of the prediction, averaged over draws.

    Args:
        source: draws with predictions of rows and with their classes, of one fit or several.
        bins: of confidence, of equal width.
        ax: by default new ones.
        labels: what the fits are called.

    Returns:
        The axes: confidence to the right, share of right answers upwards, a mark for each bin that has rows;
        the diagonal is perfect calibration. Of a single fit, bars are 95 % intervals of the share
        (Jeffreys'), and the legend gives the expected calibration error.

    Raises:
        PosteriorError: there are no predictions, no targets, or they are no classes: see ``plot_coverage``.
    """
    given = source_of(source, labels)
    probs, classes = classes_of(given)
    ax = panel(ax, 5.0, 3.6)
    ax.plot([0, 1], [0, 1], color=REFERENCE, linestyle="--", linewidth=1, label="perfect")
    fits = len(probs)
    for fit in range(fits):
        confidence, right, rows = binned(probs[fit], classes, bins)
        name = label(given.labels, fit)
        if fits == 1:
            name = f"ECE {calibration_error(probs[fit], classes, bins):.3f}"
            low, high = beta.interval(0.95, right * rows + 0.5, (1 - right) * rows + 0.5)
            ax.vlines(confidence, low, high, color=mark_style(fit, fits)["color"], linewidth=1)
        ax.plot(confidence, right, linewidth=1, markersize=4, label=name, **mark_style(fit, fits))
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence (probability of the likeliest class)")
    ax.set(title=f"Reliability on {len(classes):,} rows", ylabel="right answers (share)")
    legend(ax)
    return ax


def classes_of(given: Source) -> tuple[Array, Array]:
    """(fits, rows, classes), predicted probabilities; and (rows,), the true class of each.

    Raises:
        PosteriorError: one of them is not there.
    """
    predictive = given.need("posterior_predictive", REMEDY)
    observed = given.need("observed_data", REMEDY)
    if predictive["y"].dtype != np.int16 or "mean" not in predictive or predictive["mean"].ndim != 3:
        raise PosteriorError(
            "A reliability diagram is for classes, and these targets are none: take plot_coverage()."
        )
    return predictive["mean"].values.astype(np.float64), observed["y"].values


def binned(probs: Array, classes: Array, bins: int) -> tuple[Array, Array, Array]:
    """Rows in bins of confidence: mean confidence, share of right answers, and rows, of each that has any.

    Args:
        probs: (rows, classes).
        classes: (rows,), the true ones.
        bins: of equal width.
    """
    confidence, right = probs.max(-1), probs.argmax(-1) == classes
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    used = np.unique(which)
    return (
        np.array([confidence[which == b].mean() for b in used]),
        np.array([right[which == b].mean() for b in used]),
        np.array([(which == b).sum() for b in used]),
    )
