"""Inclusion probabilities, group by group: what is kept, what is gone, and what lies in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from bayesprune.posterior.diagnose.decided import BETWEEN
from bayesprune.posterior.plots.colours import PROBABILITY
from bayesprune.posterior.plots.figures import panel, short
from bayesprune.posterior.plots.source import KEPT, Array, source_of

FILL = 0.8
"""Share of a group's row that its strips take."""


def plot_inclusion(source: Any, ax: Axes | None = None, labels: Sequence[str] | None = None) -> Axes:
    """Every unit's inclusion probability, as a strip for each group, units sorted.

    Args:
        source: of a fit, or of several: a result, results, a posterior, or draws.
        ax: by default new ones.
        labels: what the fits are called; strips of a group lie below each other in their order.

    Returns:
        The axes: a row a group, with a strip (an image of (1, units)) for each fit; the horizontal axis is
        the share of the group's units in percent, colour is q(z = 1). Right of each row are the numbers of
        the first fit, or their range over fits.

    Raises:
        PosteriorError: the source has no inclusion probabilities.
    """
    given = source_of(source, labels)
    groups, fits = given.inclusion(), len(given.labels)
    ax = panel(ax, 5.5, 1.3 + max(0.24, 0.07 * fits) * max(len(groups), 5))
    image = None
    for row, theta in enumerate(groups.values()):
        for fit, probs in enumerate(theta):
            top = row - FILL / 2 + FILL * fit / fits
            image = ax.imshow(
                np.sort(probs)[None, ::-1], aspect="auto", interpolation="nearest", vmin=0, vmax=1,
                cmap=PROBABILITY, extent=(0, 100, top + FILL / fits, top),
            )  # fmt: skip
    ax.set_yticks(range(len(groups)), [short(name) for name in groups])
    counts = ax.secondary_yaxis("right")
    counts.set_yticks(range(len(groups)), [_counts(theta) for theta in groups.values()])
    counts.tick_params(length=0)
    ax.set(xlim=(0, 100), ylim=(len(groups) - 0.5, -0.5), xlabel="units, sorted (% of the group)")
    strips = f", a strip a fit ({fits})" if fits > 1 else ""
    ax.set(title=f"Inclusion probabilities{strips}", ylabel="group")
    if image is not None:
        about = "inclusion probability q(z = 1)"
        ax.figure.colorbar(image, ax=ax, label=about, location="bottom", fraction=0.05)
    return ax


def _counts(theta: Array) -> str:
    """How many of a group are kept, and how many undecided: (fits, units)."""
    kept = (theta > KEPT).sum(-1)
    between = ((theta > BETWEEN[0]) & (theta < BETWEEN[1])).sum(-1)
    undecided = f", {_range(between)} undecided" if between.any() else ""
    return f"{_range(kept)} of {theta.shape[-1]}{undecided}"


def _range(counts: Array) -> str:
    least, most = int(counts.min()), int(counts.max())
    return str(least) if least == most else f"{least}–{most}"
