"""The ELBO over the epochs: has the fit come to rest?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from bayesprune.errors import PosteriorError
from bayesprune.posterior.plots.colours import label, line_style
from bayesprune.posterior.plots.figures import legend, panel
from bayesprune.posterior.plots.source import source_of


def plot_elbo(source: Any, ax: Axes | None = None, labels: Sequence[str] | None = None) -> Axes:
    """The evidence lower bound at the end of each epoch, a line a fit.

    The prior's weight rises in the first part of the training, and weights that are points count by their
    density, so that the bound may fall, and be positive: only where it comes to rest means something.

    Args:
        source: of a fit, or of several: a result, results, a posterior, or draws with a history.
        ax: by default new ones.
        labels: what the fits are called.

    Returns:
        The axes: epochs from 1 to the right, nats upwards; a dot marks the epoch in which the last gates were
        decided.

    Raises:
        PosteriorError: there is no history, or no bound in it, as of samples that no guide gave.
    """
    given = source_of(source, labels)
    elbo = given.over_epochs("elbo")  # (fits, epochs)
    if np.isnan(elbo).all():
        raise PosteriorError(
            "The history has no ELBO: these samples were drawn without a guide. Look at the sampler's own "
            "R-hat and effective sample size (arviz.summary)."
        )
    decided = np.asarray(given.groups["constant_data"]["decided_at"].values, np.float64)
    ax = panel(ax)
    epochs = np.arange(1, elbo.shape[1] + 1)
    for fit, values in enumerate(elbo):
        style = line_style(fit, len(elbo))
        ax.plot(epochs, values, label=label(given.labels, fit), **style)
        if not np.isnan(decided[fit]):
            ax.plot(decided[fit], values[int(decided[fit]) - 1], "o", color=style["color"], markersize=4)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    dot = " (dot: gates decided)" if not np.isnan(decided).all() else ""
    ax.set(title=f"Evidence lower bound{dot}", xlabel="epoch", ylabel="ELBO (nats)")
    if len(elbo) > 1:
        legend(ax)
    return ax
