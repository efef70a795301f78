"""Plots of how a fit came about: sizes, the bound, and single gates, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bayesprune.posterior import plots
from bayesprune.posterior.arviz import Groups, wrap
from bayesprune.posterior.plots.gates import MOST_PANELS
from bayesprune.report.drawing import PANEL, Plot, axes_of, drawn, sizes_of, width_for


def over_epochs(container: Any, groups: Groups, names: Sequence[str]) -> Iterator[Plot]:
    """Units left, the bound, and the cost.

    Args:
        container: draws with a history.
        groups: the same as groups of variables.
        names: what the fits are called.
    """
    yield _kept(container, list(sizes_of(groups)))
    if not np.isnan(groups["history"]["elbo"].values).all():
        yield Plot(
            "Did the training come to rest?",
            "The evidence lower bound after each epoch. It may fall while the price of units is raised; what "
            "counts is that it is level at the end. A dot marks the epoch in which every gate was decided.",
            drawn(plots.plot_elbo, container, labels=names),
        )
    yield Plot(
        "How the cost fell",
        "Multiply-accumulates of one row after each epoch, in percent of the dense network, on a logarithmic "
        "scale.",
        drawn(plots.plot_cost, container, labels=names),
    )


def _kept(container: Any, groups: Sequence[str]) -> Plot:
    return Plot(
        "How each group shrank",
        "The share of each group's units that had not been removed after each epoch; right, their number "
        "at the end.",
        drawn(plots.plot_kept, container, height=1.2 + 0.2 * max(len(groups), 5), width=width_for(groups)),
    )


def gates(groups: Groups, names: Sequence[str]) -> Iterator[Plot]:
    """Every gate of the first fit, a small plot for each of the largest groups.

    Args:
        groups: of draws with a history.
        names: what the fits are called.
    """
    sizes = sizes_of(groups)
    largest = sorted(sizes, key=lambda name: -sizes[name])[:MOST_PANELS]
    first = _first_fit(groups)
    whose = f" of {names[0]}" if len(names) > 1 else ""
    for name in [name for name in sizes if name in largest]:
        (ax,) = plots.plot_gates(first, axes_of(2.3, PANEL), [name])
        title = ax.get_title().replace(r"\$", "$").removesuffix(" kept")
        ax.set_title("")
        ax.set_ylabel("unit, by age")
        yield Plot(
            title,
            f"Gates{whose} over the epochs: a line a unit, bright while it is there, dark when it is gone.",
            ax,
            small=True,
        )


def _first_fit(groups: Groups) -> Any:
    """The history of the first fit as draws of its own."""
    parts = ("posterior", "history", "constant_data")
    return wrap({name: groups[name].isel(chain=[0]) for name in parts})
