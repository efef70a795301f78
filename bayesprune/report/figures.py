"""The plots of a report: what each is called, what it says, and what it says to who cannot see it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bayesprune.posterior import plots
from bayesprune.posterior.arviz import TAKES_AXES, Groups
from bayesprune.posterior.evidence import EvidenceTable
from bayesprune.posterior.plots.figures import cut
from bayesprune.posterior.plots.inputs import INPUTS
from bayesprune.report.drawing import Plot, axes_of, drawn, sizes_of, width_for
from bayesprune.report.training import gates, over_epochs
from bayesprune.selection.front import FrontFigures

LONGEST_LABEL = 18
COSTS = {"macs": "multiply-accumulates", "parameters": "parameters"}


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
    names = [cut(label, LONGEST_LABEL) for label in labels]
    sizes, several = sizes_of(groups), len(names) > 1
    found = [_inclusion(container, names, list(sizes))]
    if several:
        found += [_seeds(container, names, list(sizes)), _draws(container, names)]
    if _is_image(image, sizes.get(INPUTS, 0)):
        found.append(_inputs(container, image, several))
    if "history" in groups:
        found += over_epochs(container, groups, names)
    found += _calibration(container, groups, names)
    if "history" in groups:
        found += gates(groups, names)
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
        drawn(plots.plot_evidence, table, height=3.4),
    )


def plot_of_front(fronts: Sequence[FrontFigures], labels: Sequence[str]) -> Plot:
    """How far each fit could be cut as it is.

    Args:
        fronts: one a fit.
        labels: what the fits are called.
    """
    ax = axes_of(3.2 + 0.5 * len(fronts))
    for front, label in zip(fronts, labels, strict=True):
        plots.plot_pareto(front, ax=ax, label=cut(label, LONGEST_LABEL))
    ax.set_title("")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)  # data keep the width
    return Plot(
        "Could it be smaller still?",
        "Error against cost if units are taken away without any training, those first that save least for "
        "what they cost. Bands hold 90 % of the errors, over drawn masks and rows, bars 90 % of the costs; "
        f"open squares are single masks. {_within(fronts[0], labels)} A network that learns under such a "
        f"budget mostly has a lower error. {fronts[0].conditions}",
        ax,
    )


def _within(front: FrontFigures, labels: Sequence[str]) -> str:
    """How far a fit can be cut until its error leaves the interval that it has as it is."""
    whose = labels[0] if len(labels) > 1 else "the fit"
    error, (low, high) = front.error_name.replace("_", " "), front.error_interval[0]
    farthest = float(front.cost[front.error <= high].min())
    begin = (
        f"At {front.cost[0]:.3g} % of the dense network's {COSTS[front.cost_name]} {whose} has a mean "
        f"{error} of {front.error[0]:.3g} (90 %: {low:.3g} to {high:.3g})"
    )
    if farthest >= front.cost[0]:
        return f"{begin}, and every smaller network that was looked at has more than that."
    return f"{begin}; the mean is within that interval down to {farthest:.3g} %."


def _inclusion(container: Any, names: Sequence[str], groups: Sequence[str]) -> Plot:
    height = 1.3 + max(0.22, 0.06 * len(names)) * max(len(groups), 5)
    lines = " Each group has a strip for each fit." if len(names) > 1 else ""
    return Plot(
        "Which units are there",
        "Every unit's inclusion probability, units of a group sorted: bright units stay, dark ones are gone, "
        "and anything in between is undecided." + lines,
        drawn(plots.plot_inclusion, container, height=height, width=width_for(groups), labels=names),
    )


def _seeds(container: Any, names: Sequence[str], groups: Sequence[str]) -> Plot:
    height = 1.0 + 0.24 * max(len(groups), 5)
    return Plot(
        "Fits side by side: units kept",
        "The share of each group that every fit keeps. Marks that lie together agree in number; whether they "
        "keep the same units is in the diagnosis.",
        drawn(plots.plot_seeds, container, height=height, width=width_for(groups), labels=names),
    )


def _draws(container: Any, names: Sequence[str]) -> Plot:
    own = axes_of(1.0 + 0.3 * len(names)) if TAKES_AXES else None
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
        drawn(plots.plot_inputs, container, image, height=4.6),
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
            drawn(plots.plot_reliability, container, height=3.4, labels=names),
        )
    elif np.issubdtype(predictive["y"].dtype, np.floating):
        yield Plot(
            "Do its intervals hold what they promise?",
            "The share of held-out targets inside the central predictive interval of each level. Below the "
            "dashed line the network is too sure; in the grey band the difference may be chance.",
            drawn(plots.plot_coverage, container, height=3.4, labels=names),
        )


def _is_image(shape: tuple[int, ...], size: int) -> bool:
    return len(shape) in (2, 3) and min(shape[-2:]) > 1 and int(np.prod(shape)) == size
