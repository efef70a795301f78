"""Error against cost, from one fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.ticker import FuncFormatter, LogLocator

from bayesprune.posterior.plots.colours import FITS
from bayesprune.posterior.plots.cost import NAMES
from bayesprune.posterior.plots.figures import legend, panel

if TYPE_CHECKING:  # it draws what a room above this one makes
    from bayesprune.selection.front import FrontFigures


def plot_pareto(front: FrontFigures, ax: Axes | None = None, label: str = "one fit") -> Axes:
    """The front of ``bp.pareto``: the mean error with its 90 % interval, over the mean cost with its own.

    Args:
        front: of ``bp.pareto``, or ``read_front``'s of a run. Several are drawn into the same axes, each by a
            call.
        ax: by default new ones.
        label: what the fit is called.

    Returns:
        The axes: percent of the dense network's cost to the right, on a logarithmic scale; the likelihood's
        score upwards. The band holds 90 % of the errors, bars 90 % of the costs; open marks are the masks
        within each budget. Points that another one beats in both are pale.
    """
    ax = panel(ax, 6.0, 3.6)
    colour = FITS[sum(isinstance(c, PolyCollection) for c in ax.collections) % len(FITS)]
    order = np.argsort(front.cost, kind="stable")
    cost, error = front.cost[order], front.error[order]
    low, high = front.error_interval[order].T
    ax.fill_between(cost, low, high, color=colour, alpha=0.2, linewidth=0, label=f"{label}: 90 % of errors")
    ax.plot(cost, error, color=colour, linewidth=1.2, label=f"{label}: mean")
    for part, alpha in ((front.undominated[order], 1.0), (~front.undominated[order], 0.35)):
        if bool(part.any()):
            bars = np.abs(front.cost_interval[order][part].T - cost[part])
            ax.errorbar(
                cost[part], error[part], xerr=bars, fmt="o", ms=4, color=colour, alpha=alpha, elinewidth=0.8
            )
    ax.plot(
        front.mask_cost, front.mask_error, "s", ms=4.5, color=colour, markerfacecolor="none",
        label=f"{label}: the mask",
    )  # fmt: skip
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g}"))
    ax.xaxis.set_minor_formatter(FuncFormatter(lambda share, _: ""))
    ax.set(xlabel=f"{NAMES[front.cost_name]} (% of dense)", ylabel=front.error_name.replace("_", " "))
    ax.set_title("Error against cost")
    legend(ax)
    return ax
