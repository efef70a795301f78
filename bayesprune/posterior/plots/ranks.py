"""Ranks of simulation-based calibration: uniform, if the inference is right."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from scipy.stats import binom

from bayesprune.errors import PosteriorError
from bayesprune.posterior.diagnose.calibrated import rank_edges, rank_uniformity
from bayesprune.posterior.plots.colours import FITS, REFERENCE
from bayesprune.posterior.plots.figures import legend, panel
from bayesprune.posterior.plots.source import Array

BAND = 0.99


def plot_ranks(ranks: Array, draws: int, bins: int = 10, ax: Axes | None = None) -> Axes:
    """Histogram of SBC ranks, with the band that uniform ranks stay in (Talts et al., arXiv 1804.06788).

    Ranks that heap up at both ends come from a posterior that is too narrow, in the middle from one that is
    too wide, at one end from a biased one.

    Args:
        ranks: (simulations,), whole numbers in 0 … draws, as ``sbc_rank`` gives them.
        draws: posterior draws in each simulation.
        bins: of ranks.
        ax: by default new ones.

    Returns:
        The axes: ranks to the right, simulations upwards; in the grey band each bar lies with a probability
        of 99 %, if all is well. The title gives the p-value of the χ² test that all are uniform.

    Raises:
        PosteriorError: no ranks, or some out of range.
    """
    ranks = np.asarray(ranks)
    if ranks.ndim != 1 or not len(ranks) or ranks.min() < 0 or ranks.max() > draws:
        raise PosteriorError(f"ranks= of shape {ranks.shape}: give one rank in 0 … {draws} a simulation.")
    edges = rank_edges(draws, bins)
    counts, widths = np.histogram(ranks, edges)[0], np.diff(edges)
    share = widths / (draws + 1)
    ax = panel(ax)
    low, high = (binom.ppf(q, len(ranks), share) for q in ((1 - BAND) / 2, (1 + BAND) / 2))
    ax.bar(edges[:-1], counts, widths, align="edge", color=FITS[0], edgecolor="white", linewidth=0.5)
    ax.stairs(
        high, edges, baseline=low, fill=True, color=REFERENCE, alpha=0.4, label=f"uniform,\n{BAND:.0%} a bar"
    )
    p = rank_uniformity(ranks, draws, bins)
    ax.set(title=f"Ranks of {len(ranks):,} simulations, p = {p:.2g}", xlabel=f"rank among {draws:,} draws")
    ax.set(xlim=(0, draws + 1), ylabel="simulations")
    legend(ax)
    return ax
