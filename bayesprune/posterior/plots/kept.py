"""How much of each group is left, epoch by epoch: one row a group, however many groups there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bayesprune.posterior.plots.colours import PROBABILITY
from bayesprune.posterior.plots.figures import panel, short
from bayesprune.posterior.plots.source import source_of


def plot_kept(source: Any, ax: Axes | None = None, labels: Sequence[str] | None = None) -> Axes:
    """The share of each group's units that is left, over the epochs; the mean over fits.

    Args:
        source: of a fit, or of several: a result, results, a posterior, or draws with a history.
        ax: by default new ones.
        labels: what the fits are called; not shown here.

    Returns:
        The axes: a row a group in the order of the network, a column an epoch, colour the percentage of the
        group's units that had not been removed. Right of each row is how many are left at the end.

    Raises:
        PosteriorError: there is no history.
    """
    given = source_of(source, labels)
    kept = given.over_epochs("kept")  # (fits, epochs, groups)
    history = given.groups["history"]
    names = [str(name) for name in history["group"].values]
    sizes = np.array([history.sizes[f"{name}_unit"] for name in names])
    epochs = kept.shape[1]
    lasts = np.stack([fit[~np.isnan(fit).any(-1)][-1] for fit in kept])  # where a shorter fit stays
    filled = np.where(np.isnan(kept), lasts[:, None], kept)
    ax = panel(ax, 5.5, 1.2 + 0.22 * max(len(names), 6))
    image = ax.imshow(
        100 * (filled / sizes).mean(0).T, aspect="auto", interpolation="nearest", vmin=0, vmax=100,
        cmap=PROBABILITY, extent=(0.5, epochs + 0.5, len(names) - 0.5, -0.5),
    )  # fmt: skip
    ax.set_yticks(range(len(names)), [short(name) for name in names])
    counts = ax.secondary_yaxis("right")
    ends = [f"{left:.4g} of {size}" for left, size in zip(lasts.mean(0), sizes, strict=True)]
    counts.set_yticks(range(len(names)), ends)
    counts.tick_params(length=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    mean = f", mean of {len(kept)} fits" if len(kept) > 1 else ""
    ax.set(title=f"Units left{mean}", xlabel="epoch", ylabel="group")
    ax.figure.colorbar(image, ax=ax, label="units left (% of the group)", location="bottom", fraction=0.05)
    return ax
