"""Gates over epochs: when did which unit die, and was it sure?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from bayesprune.errors import PosteriorError
from bayesprune.posterior.plots.colours import PROBABILITY
from bayesprune.posterior.plots.figures import panels, short
from bayesprune.posterior.plots.source import KEPT, Array, Source, source_of

MOST_PANELS = 12


def plot_gates(
    source: Any,
    axes: Sequence[Axes] | Axes | None = None,
    groups: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
) -> list[Axes]:
    """Inclusion probabilities over the epochs, one panel a group, units sorted by when they died.

    Args:
        source: of a fit, or of several: a result, results, a posterior, or draws with a history.
        axes: one for each group of each fit; by default they are made, and reached through ``.figure``.
        groups: names of those to show; by default all, or the twelve with the most units.
        labels: what the fits are called.

    Returns:
        The axes, fit by fit. Each panel's vertical axis is the group's units, its horizontal one epochs;
        colour is q(z = 1).

    Raises:
        PosteriorError: no history, a group that is not there, or not as many axes as panels.
    """
    given = source_of(source, labels)
    names = _names(given, groups)
    fits = len(given.labels)
    made = panels(len(names), fits) if axes is None else [axes] if isinstance(axes, Axes) else list(axes)
    if len(made) != fits * len(names):
        raise PosteriorError(
            f"axes= has {len(made)} axes for {len(names)} groups of {fits} fits: give {fits * len(names)}, "
            "or say groups=."
        )
    decided = np.asarray(given.groups["constant_data"]["decided_at"].values, np.float64)
    image = None
    for number, ax in enumerate(made):
        fit, name = divmod(number, len(names))
        theta = given.over_epochs(f"inclusion_prob/{names[name]}")[fit]  # (epochs, units)
        before = f"{given.labels[fit]}, " if fits > 1 else ""
        image = _draw(ax, theta[~np.isnan(theta).any(-1)], before + short(names[name]), decided[fit])
    if axes is None and image is not None:
        figure = made[0].figure
        figure.colorbar(image, ax=made, label="inclusion probability q(z = 1)", fraction=0.04, pad=0.02)
        figure.suptitle("Gates over epochs" + _decided(decided), fontsize=11)
    return made


def _draw(ax: Axes, theta: Array, name: str, decided_at: float) -> AxesImage:
    """One group of one fit, (epochs, units)."""
    epochs, size = theta.shape
    order = np.lexsort((theta.mean(0), theta[-1] > KEPT))[::-1]
    image = ax.imshow(
        theta[:, order].T, aspect="auto", interpolation="nearest", vmin=0, vmax=1, cmap=PROBABILITY,
        extent=(0.5, epochs + 0.5, size, 0),
    )  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    kept = int((theta[-1] > KEPT).sum())
    ax.set(title=f"{name}: {kept} of {size} kept", xlabel="epoch", ylabel="unit, longest-lived on top")
    if not np.isnan(decided_at):
        ax.axvline(decided_at, color="white", linestyle=":", linewidth=1.2)
    return image


def _names(given: Source, groups: Sequence[str] | None) -> list[str]:
    history = given.need("history", "give the result of fit(), not a model that was not fitted.")
    there = [str(name) for name in history["group"].values]
    if groups is not None:
        missing = [name for name in groups if name not in there]
        if missing or not groups:
            raise PosteriorError(f"groups={list(groups)}: the network has the groups {there}.")
        return list(groups)
    if len(there) <= MOST_PANELS:
        return there
    sizes = np.array([history.sizes[f"{name}_unit"] for name in there])
    largest = set(np.argsort(-sizes, kind="stable")[:MOST_PANELS].tolist())
    return [name for number, name in enumerate(there) if number in largest]


def _decided(decided: Array) -> str:
    epochs = sorted({int(epoch) for epoch in decided[~np.isnan(decided)]})
    if not epochs or np.isnan(decided).any():
        return ""
    if len(epochs) == 1:
        return f"; all gates are decided in epoch {epochs[0]} (dotted)"
    return f"; all gates are decided in epochs {epochs[0]} to {epochs[-1]} (dotted)"
