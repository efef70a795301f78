"""Evidence against price, unit by unit."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bayesprune.posterior.evidence.table import EvidenceTable
from bayesprune.posterior.plots.colours import REFERENCE, mark_style
from bayesprune.posterior.plots.figures import MOST_NAMED, legend, panel, short

DECADES = 20.0
"""From how many times the smallest price on the largest one is, prices are on a logarithmic scale."""
ERRORS = 2.0
"""Standard errors that a bar is long, to either side."""


def plot_evidence(table: EvidenceTable, ax: Axes | None = None, label: int = 5) -> Axes:
    """Gain against price; units above the line pay for themselves, and those nearest to it are named.

    Filled marks are exact gains, open ones estimates; bars are ± 2 Monte-Carlo standard errors. Gains are
    linear near zero and logarithmic beyond, and so are prices that span more than a factor of 20 or zero.

    Args:
        table: of ``evidence``.
        ax: by default a new one.
        label: how many of the units nearest to the line are named.

    Returns:
        The axes, in nats.
    """
    ax = panel(ax, 8.0, 5.0)
    ax.set(xlabel="price (nats)", ylabel="gain (nats)", title=_title(table))
    if not len(table):
        return ax
    gain, error = table.gain, np.nan_to_num(table.gain_error)
    exact, names = ~np.isnan(table.exact), list(dict.fromkeys(table.group.tolist()))
    for number, name in enumerate(names):
        style = {"alpha": 0.7, **mark_style(number, len(names))}
        for filled in (False, True):
            part = (table.group == name) & (exact == filled)
            ax.errorbar(
                table.price[part], gain[part], ERRORS * error[part], ms=4, lw=0, elinewidth=0.8,
                markerfacecolor=style["color"] if filled else "none", **style,
            )  # fmt: skip
        text = f"{short(name)} ({int((table.group == name).sum())})"
        if len(names) <= MOST_NAMED:
            ax.plot([], [], linestyle="none", label=text, **style)
        elif number == 0:
            ax.plot([], [], linestyle="none", label=f"{len(names)} groups", **style)
    for filled, text in ((True, "exact"), (False, "estimated")):
        if bool((exact == filled).any()):
            ax.plot([], [], "o", color=REFERENCE, markerfacecolor=REFERENCE if filled else "none", label=text)
    _scale(ax, table)
    _name(ax, table, label)
    legend(ax, "group (units)")
    return ax


def _title(table: EvidenceTable) -> str:
    return f"{int((table.margin >= 0).sum())} of {len(table)} units save more than their price"


def _scale(ax: Axes, table: EvidenceTable) -> None:
    """Symmetric logarithmic axes, linear below the smallest price, with the line gain = price."""
    prices = np.abs(table.price[np.isfinite(table.price) & (table.price != 0)])
    linear = float(np.clip(prices.min(initial=np.inf), 1e-2, 1e3)) if len(prices) else 1.0
    low, high = float(np.nanmin(table.price)), float(np.nanmax(table.price))
    margin = 0.6 * max(abs(low), abs(high), linear)
    ends = (low / 2 if low > 0 else low - margin, high * 2 if high > 0 else high + margin)
    if low < 0 < high or max(abs(low), abs(high)) > DECADES * linear:
        ax.set_xscale("symlog", linthresh=linear)
    else:  # no power of ten may lie in between
        ax.xaxis.set_major_locator(MaxNLocator(6))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda price, _: f"{price:g}"))
    ax.set_yscale("symlog", linthresh=linear)
    line = np.linspace(*ends, 200)
    ax.plot(line, line, color=REFERENCE, lw=1, zorder=0)
    ax.fill_between(line, line, -1e12, color=REFERENCE, alpha=0.15, lw=0, zorder=0)
    low_gain, high_gain = float(np.nanmin(table.gain)), float(np.nanmax(table.gain))
    ax.set_xlim(*ends)
    ax.set_ylim(
        0.0 if low_gain > 0 else 1.5 * low_gain - 0.1 * linear, max(1.5 * high_gain, 2 * high, linear)
    )


def _name(ax: Axes, table: EvidenceTable, count: int) -> None:
    """Names beside the nearest marks, fanned out so that they do not lie on each other."""
    nearest = table.nearest(count)
    for place, i in enumerate(sorted(nearest, key=lambda i: (table.price[i], table.gain[i]))):
        ax.annotate(
            f"{short(str(table.group[i]))} {table.unit[i]}", (table.price[i], table.gain[i]),
            xytext=(14, 9 * (place - (len(nearest) - 1) / 2)), textcoords="offset points", fontsize=7,
            va="center", arrowprops={"arrowstyle": "-", "lw": 0.5, "color": REFERENCE},
        )  # fmt: skip
