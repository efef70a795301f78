"""How small the network has become, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from bayesprune.errors import PosteriorError
from bayesprune.posterior.plots.colours import label, line_style
from bayesprune.posterior.plots.figures import legend, panel
from bayesprune.posterior.plots.source import source_of

NAMES = {"macs": "multiply-accumulates", "parameters": "parameters"}


def plot_cost(
    source: Any, cost: str = "macs", ax: Axes | None = None, labels: Sequence[str] | None = None
) -> Axes:
    """What is left of the dense network's cost at the end of each epoch, a line a fit.

    Args:
        source: of a fit, or of several: a result, results, a posterior, or draws with a history.
        cost: ``"macs"`` (multiply-accumulates of a row) or ``"parameters"``.
        ax: by default new ones.
        labels: what the fits are called.

    Returns:
        The axes: epochs from 1 to the right; percent of the dense network upwards, on a logarithmic scale.

    Raises:
        PosteriorError: another cost, or no history.
    """
    if cost not in NAMES:
        raise PosteriorError(f"cost={cost!r}: there are 'macs' and 'parameters'.")
    given = source_of(source, labels)
    values = given.over_epochs(cost)  # (fits, epochs)
    dense = float(given.groups["constant_data"][f"dense_{cost}"])
    ax = panel(ax)
    for fit, left in enumerate(values):
        style = line_style(fit, len(values))
        ax.plot(np.arange(1, len(left) + 1), 100 * left / dense, label=label(given.labels, fit), **style)
    ax.set_yscale("log")
    ax.set_ylim(top=130)
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.yaxis.set_minor_formatter(FuncFormatter(lambda x, _: ""))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.set(title=NAMES[cost].capitalize() + " left", xlabel="epoch", ylabel=f"{NAMES[cost]} (% of dense)")
    if len(values) > 1:
        legend(ax)
    return ax
