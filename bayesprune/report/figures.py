"""The plots of a report: what each is called, what it says, and what it says to who cannot see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesprune.posterior import plots
from bayesprune.posterior.arviz import TAKES_AXES, Groups, wrap
from bayesprune.posterior.evidence import EvidenceTable, plot_evidence
from bayesprune.posterior.plots.figures import short
from bayesprune.posterior.plots.gates import MOST_PANELS
from bayesprune.posterior.plots.inputs import INPUTS

WIDTH = 4.4
"""Inches: a plot fills a phone's width, and two or three fit beside each other on a desk."""
PANEL = 2.5
LONGEST_LABEL = 18


@dataclass(frozen=True)
class Plot:
    """One plot of a report.

    Attributes:
        title: its heading.
        text: what is seen, in a sentence or two; plain text.
        axes: what was drawn; the whole figure is shown.
        small: whether two fit where another plot is.
    """

    title: str
    text: str
    axes: Axes
    small: bool = False


def plots_of(container: Any, groups: Groups, labels: Sequence[str], image: tuple[int, ...]) -> list[Plot]:
    """All plots that the draws of some fits have something for.

    Args:
        container: the draws, of ArviZ.
        groups: the same as groups of variables.
        labels: what the fits are called.
        image: shape of an input, (channels, height, width); anything else is no image.

    Returns:
        The plots, in the order of reading.
    """
    names = [short(name, LONGEST_LABEL) for name in labels]
    several = len(names) > 1
    number = len([name for name in groups["posterior"] if str(name).startswith("inclusion_prob/")])
    high = max(number, 5)
    found = [_inclusion(container, names, 1.3 + max(0.22, 0.06 * len(names)) * high)]
    if several:
        found += [_seeds(container, names, 1.0 + 0.24 * high), _draws(container, names)]
    if INPUTS in _sizes(groups) and _is_image(image, _sizes(groups)[INPUTS]):
        found.append(_inputs(container, image, several))
    if "history" in groups:
        found += [_kept(container, 1.2 + 0.2 * high), *_over_epochs(container, groups, names)]
    found += _calibration(container, groups, names)
    if "history" in groups:
        found += _gates(container, groups, names)
    return found


def plot_of_gains(table: EvidenceTable, labels: Sequence[str]) -> Plot:
    """What every unit costs and what it saves.

    Args:
        table: of the first fit.
        labels: what the fits are called.
    """
    whose = f", of {labels[0]}" if len(labels) > 1 else ""
    return Plot(
        "Which units pay for themselves",
        f"What each unit that is left saves of the training rows' nats, against its price{whose}. In the "
        "grey part a unit saves less than it costs, were nothing else to change; those nearest to the line "
        "are named. " + table.conditions,
        _drawn(plot_evidence, table, height=3.4),
    )


def _axes(height: float, width: float = WIDTH) -> Axes:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure.add_subplot()


def _drawn(draw: Callable[..., Axes], *given: Any, height: float = 2.9, **settings: Any) -> Axes:
    """A plot in axes of the report's width, without the title that stands above it."""
    ax = draw(*given, ax=_axes(height), **settings)
    ax.set_title("")
    return ax


def _inclusion(container: Any, names: Sequence[str], height: float) -> Plot:
    lines = " Each group has a strip for each fit." if len(names) > 1 else ""
    return Plot(
        "Which units are there",
        "Every unit's inclusion probability, units of a group sorted: bright units stay, dark ones are gone, "
        "and anything in between is undecided." + lines,
        _drawn(plots.plot_inclusion, container, height=height, labels=names),
    )


def _seeds(container: Any, names: Sequence[str], height: float) -> Plot:
    return Plot(
        "Fits side by side: units kept",
        "The share of each group that every fit keeps. Marks that lie together agree in number; whether they "
        "keep the same units is in the diagnosis.",
        _drawn(plots.plot_seeds, container, height=height, labels=names),
    )


def _draws(container: Any, names: Sequence[str]) -> Plot:
    own = _axes(1.0 + 0.3 * len(names)) if TAKES_AXES else None
    ax = plots.plot_draws(container, ax=own, labels=names)
    ax.set_title("")
    return Plot(
        "Fits side by side: size",
        "Cost of the networks that drawn masks leave: an interval holds 94 % of the draws, and is a point "
        "where the mask is decided.",
        ax,
    )


def _inputs(container: Any, image: tuple[int, ...], several: bool) -> Plot:
    what = "how many of the fits read each input" if several else "the inputs that are still read"
    return Plot(
        "Where the network looks",
        f"A map of the input image: {what}. Dark inputs are not read at all.",
        _drawn(plots.plot_inputs, container, image, height=4.6),
    )


def _kept(container: Any, height: float) -> Plot:
    return Plot(
        "How each group shrank",
        "The share of each group's units that had not been removed after each epoch; right, their number "
        "at the end.",
        _drawn(plots.plot_kept, container, height=height),
    )


def _over_epochs(container: Any, groups: Groups, names: Sequence[str]) -> Iterator[Plot]:
    if not np.isnan(groups["history"]["elbo"].values).all():
        yield Plot(
            "Did the training come to rest?",
            "The evidence lower bound after each epoch. It may fall while the price of units is raised; what "
            "counts is that it is level at the end. A dot marks the epoch in which every gate was decided.",
            _drawn(plots.plot_elbo, container, labels=names),
        )
    yield Plot(
        "How the cost fell",
        "Multiply-accumulates of one row after each epoch, in percent of the dense network, on a logarithmic "
        "scale.",
        _drawn(plots.plot_cost, container, labels=names),
    )


def _calibration(container: Any, groups: Groups, names: Sequence[str]) -> Iterator[Plot]:
    if "posterior_predictive" not in groups or "observed_data" not in groups:
        return
    predictive = groups["posterior_predictive"]
    if "mean" in predictive and predictive["y"].dtype == np.int16 and predictive["mean"].ndim == 3:
        yield Plot(
            "Is it as right as it is sure?",
            "Rows that were not learnt from, by the confidence of their prediction: on the dashed line, the "
            "network is right as often as it says; below it, it is too sure.",
            _drawn(plots.plot_reliability, container, height=3.4, labels=names),
        )
    elif np.issubdtype(predictive["y"].dtype, np.floating):
        yield Plot(
            "Do its intervals hold what they promise?",
            "The share of held-out targets inside the central predictive interval of each level. Below the "
            "dashed line the network is too sure; in the grey band the difference may be chance.",
            _drawn(plots.plot_coverage, container, height=3.4, labels=names),
        )


def _gates(container: Any, groups: Groups, names: Sequence[str]) -> Iterator[Plot]:
    sizes = _sizes(groups)
    largest = sorted(sizes, key=lambda name: -sizes[name])[:MOST_PANELS]
    first = _first_fit(groups)
    whose = f" of {names[0]}" if len(names) > 1 else ""
    for name in [name for name in sizes if name in largest]:
        (ax,) = plots.plot_gates(first, _axes(2.3, PANEL), [name])
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


def _sizes(groups: Groups) -> dict[str, int]:
    """Group of units → how many the dense network has, in order."""
    names = [str(name).removeprefix("gate/") for name in groups["posterior"] if str(name).startswith("gate/")]
    return {name: groups["posterior"].sizes[f"{name}_unit"] for name in names}


def _is_image(shape: tuple[int, ...], size: int) -> bool:
    return len(shape) in (2, 3) and min(shape[-2:]) > 1 and int(np.prod(shape)) == size
