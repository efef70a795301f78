"""What drawn masks come to, by ArviZ's forest plot: how sure is each fit of its size, and do they agree?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xarray as xr
from matplotlib.axes import Axes

from bayesprune.errors import PosteriorError
from bayesprune.posterior.arviz import TAKES_AXES, forest
from bayesprune.posterior.plots.colours import line_style
from bayesprune.posterior.plots.figures import panel
from bayesprune.posterior.plots.source import source_of

REMEDY = "draw from the guide first: result.posterior().to_arviz()."


def plot_draws(source: Any, ax: Axes | None = None, labels: Sequence[str] | None = None) -> Axes:
    """Cost of the networks that the drawn masks leave, an interval a fit (``arviz.plot_forest``).

    Args:
        source: draws from ``to_arviz`` or ``read``, of one fit or several.
        ax: by default new ones. ArviZ 1.x lays out a figure of its own, and takes none.
        labels: what the fits are called.

    Returns:
        The axes: percent of the dense network to the right; for MACs and for parameters an interval a fit
        that holds 94 % of the draws, with its quartiles and median. A guide whose gates are decided has a
        point.

    Raises:
        PosteriorError: the source has no draws; or axes were given, and ArviZ is 1.x.
    """
    given = source_of(source, labels)
    stats, constant = given.need("sample_stats", REMEDY), given.groups["constant_data"]
    shares = xr.Dataset(
        {
            name: 100 * stats[cost] / float(constant[f"dense_{cost}"])
            for name, cost in (("MACs", "macs"), ("parameters", "parameters"))
        }
    )
    number = len(given.labels)
    if ax is not None and not TAKES_AXES:
        raise PosteriorError("ArviZ 1.x lays out the figure of plot_forest itself: leave out ax=.")
    ax = panel(ax, 5.5, 1.6 + 0.25 * number) if TAKES_AXES else None
    colours = [line_style(fit, number)["color"] for fit in range(number)]
    names = given.labels if len(set(given.labels)) == number else tuple(map(str, range(number)))
    parts = [shares.isel(chain=[fit]).assign_coords(chain=[0]) for fit in range(number)]
    drawn: Axes = forest(dict(zip(names, parts, strict=True)), colours, ax)
    drawn.set(xlabel="cost of drawn masks (% of dense)", ylabel="fit and cost" if number > 1 else "cost")
    drawn.set_title("Size, over draws of the guide", fontsize=None)
    return drawn
