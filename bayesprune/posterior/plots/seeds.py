"""Fits side by side: do they keep as much of each group?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from bayesprune.posterior.plots.colours import label, mark_style
from bayesprune.posterior.plots.figures import legend, panel, short
from bayesprune.posterior.plots.source import KEPT, source_of

SPREAD = 0.5
"""Of a row's height: how far the marks of its fits lie apart, so that none hides another."""


def plot_seeds(source: Any, ax: Axes | None = None, labels: Sequence[str] | None = None) -> Axes:
    """The share of each group's units that every fit keeps, a mark a fit.

    Args:
        source: of a fit, or of several: a result, results, a posterior, or draws.
        ax: by default new ones.
        labels: what the fits are called.

    Returns:
        The axes: a row a group in the order of the network; the horizontal axis is the percentage of the
        group's units with q(z = 1) > ½.

    Raises:
        PosteriorError: the source has no inclusion probabilities.
    """
    given = source_of(source, labels)
    groups, fits = given.inclusion(), len(given.labels)
    kept = np.array([100 * (theta > KEPT).mean(-1) for theta in groups.values()])  # (groups, fits)
    rows = np.arange(len(groups))
    ax = panel(ax, 5.5, 1.0 + 0.26 * max(len(groups), 5))
    for fit in range(fits):
        shift = SPREAD * (fit / (fits - 1) - 0.5) if fits > 1 else 0.0
        style = mark_style(fit, fits)
        ax.plot(
            kept[:, fit],
            rows + shift,
            linestyle="none",
            markersize=5,
            label=label(given.labels, fit),
            **style,
        )
    for row in rows:
        ax.axhline(row + 0.5, color="#808080", linewidth=0.4, alpha=0.5)
    ax.set_yticks(rows, [short(name) for name in groups])
    ax.set(xlim=(-2, 102), ylim=(len(groups) - 0.5, -0.5), ylabel="group")
    ax.set(title="Units kept, fit by fit" if fits > 1 else "Units kept", xlabel="units kept (% of the group)")
    if fits > 1:
        legend(ax)
    return ax
