"""A plot of a report, and the axes that all of them are drawn into: as wide as a phone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesprune.posterior.arviz import Groups
from bayesprune.posterior.plots.figures import LONGEST_NAME

WIDTH = 4.4
"""Inches: a plot fills a phone's width, and two or three fit beside each other on a desk."""
PANEL = 2.5
SHORT_NAME, LETTER = 10, 0.08
"""A plot grows by so many inches for each letter of the longest name beyond ten: data keep their room."""


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


def axes_of(height: float, width: float = WIDTH) -> Axes:
    """Axes of a new figure, inches."""
    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def drawn(
    draw: Callable[..., Axes], *given: Any, height: float = 2.9, width: float = WIDTH, **settings: Any
) -> Axes:
    """A plot in axes of its own, without the title: that stands above it."""
    ax = draw(*given, ax=axes_of(height, width), **settings)
    ax.set_title("")
    return ax


def width_for(names: Sequence[str]) -> float:
    """How wide a plot with a row for each group is, inches."""
    longest = min(max(len(name) for name in names), LONGEST_NAME)
    return WIDTH + LETTER * max(longest - SHORT_NAME, 0)


def sizes_of(groups: Groups) -> dict[str, int]:
    """Group of units → how many the dense network has, in order."""
    names = [str(name).removeprefix("gate/") for name in groups["posterior"] if str(name).startswith("gate/")]
    return {name: groups["posterior"].sizes[f"{name}_unit"] for name in names}
