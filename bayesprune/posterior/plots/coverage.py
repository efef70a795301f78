"""Coverage: do intervals that shall hold 80 % of the targets hold 80 % of them?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy.stats import binom

from bayesprune.errors import PosteriorError
from bayesprune.posterior.plots.colours import REFERENCE, label, line_style
from bayesprune.posterior.plots.figures import legend, panel
from bayesprune.posterior.plots.reliability import REMEDY
from bayesprune.posterior.plots.source import Array, Source, source_of

BAND = 0.95


def plot_coverage(source: Any, ax: Axes | None = None, labels: Sequence[str] | None = None) -> Axes:
    """Share of the targets that lie in the central predictive interval of each level, a line a fit.

    Args:
        source: draws with predictions of rows and with their targets, of one fit or several.
        ax: by default new ones.
        labels: what the fits are called.

    Returns:
        The axes: the interval's level to the right, the share of targets inside upwards. A line above the
        diagonal is too cautious, below it too sure; in the grey band lie 95 % of what independent rows
        give by chance at each level, where all is well.

    Raises:
        PosteriorError: there are no predictions, no targets, or these are classes: see ``plot_reliability``.
    """
    given = source_of(source, labels)
    inside = central_levels(given)  # (fits, targets)
    targets = inside.shape[-1]
    levels = np.linspace(0, 1, 101)
    ax = panel(ax, 5.0, 3.6)
    tail = (1 - BAND) / 2
    low, high = (binom.ppf(q, targets, levels) / targets for q in (tail, 1 - tail))
    ax.fill_between(levels, low, high, color=REFERENCE, alpha=0.3, linewidth=0, label="by chance, 95 %")
    ax.plot([0, 1], [0, 1], color=REFERENCE, linestyle="--", linewidth=1, label="perfect")
    for fit, values in enumerate(inside):
        share = (values[:, None] <= levels + 1e-12).mean(0)
        style = line_style(fit, len(inside))
        ax.plot(levels, share, label=label(given.labels, fit) if len(inside) > 1 else "predictions", **style)
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="level of the central predictive interval")
    ax.set(title=f"Coverage of {targets:,} targets", ylabel="targets inside (share)")
    legend(ax)
    return ax


def central_levels(given: Source) -> Array:
    """(fits, targets): the level of the smallest central predictive interval that holds each target.

    It is |2 u − 1|, where u is the target's rank among its draws (ties count half), and uniform on [0, 1]
    where predictions are calibrated.

    Raises:
        PosteriorError: predictions or targets are not there, or are classes.
    """
    predictive = given.need("posterior_predictive", REMEDY)
    observed = given.need("observed_data", REMEDY)["y"].values
    drawn = predictive["y"].values  # (fits, draws, rows, ...)
    if drawn.dtype == np.int16:
        raise PosteriorError(
            "Coverage is of numbers, and the targets are classes: take plot_reliability() for them."
        )
    if drawn.shape[2:] != observed.shape:
        observed = observed.reshape(drawn.shape[2:])
    below, equal = (drawn < observed).mean(1), (drawn == observed).mean(1)
    return np.asarray(np.abs(2 * (below + equal / 2) - 1).reshape(len(drawn), -1))
