"""Axes to draw into, what is written beside them, and files of them; no setting is changed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesprune.files import write_atomically

LONGEST_NAME = 22
MOST_COLUMNS = 4
MOST_NAMED = 10
"""Fits that a legend names one by one; more are drawn alike and counted."""


def panel(ax: Axes | None, width: float = 5.0, height: float = 3.2) -> Axes:
    """The axes that were given, or those of a new figure.

    Args:
        ax: given, or None.
        width: of a new figure, inches.
        height: of a new figure, inches.
    """
    return ax or Figure(figsize=(width, height), layout="constrained").add_subplot()


def panels(count: int, blocks: int = 1) -> list[Axes]:
    """Axes of a new figure, up to four beside each other.

    Args:
        count: of a block, which begins a new line.
        blocks: one below the other.

    Returns:
        (count × blocks) axes, block by block.
    """
    columns = min(count, MOST_COLUMNS)
    lines = -(-count // columns)
    figure = Figure(figsize=(1.2 + 3.2 * columns, 0.6 + 3.6 * lines * blocks), layout="constrained")
    places = [block * lines * columns + number for block in range(blocks) for number in range(count)]
    return [figure.add_subplot(lines * blocks, columns, place + 1) for place in places]


def legend(ax: Axes, title: str | None = None) -> None:
    """Name what was drawn with a label, right of the data."""
    handles, labels = ax.get_legend_handles_labels()
    if labels:
        ax.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, title=title)


def plain(name: str) -> str:
    """A name as Matplotlib shall write it: as it is, and never as a formula.

    Example:
        >>> plain("a$b$c")
        'a\\\\$b\\\\$c'
    """
    return name.replace("$", r"\$")


def cut(name: str, longest: int = LONGEST_NAME) -> str:
    """A name that fits beside an axis; the middle of a longer one is left out.

    Example:
        >>> cut("encoder_layers_11_self_attention_heads")
        'encoder_la…tention_heads'
    """
    if len(name) <= longest + 2:
        return name
    return f"{name[: longest // 2 - 1]}…{name[-(longest // 2 + 2) :]}"


def short(name: str) -> str:
    """A name that fits beside an axis, and is written as it is."""
    return plain(cut(name))


def save_figure(axes: Sequence[Axes] | Axes, path: str | Path) -> None:
    """Write the figure that some axes belong to, as a PNG, whole or not at all.

    Args:
        axes: from one of the plots.
        path: file.

    Raises:
        OSError: it cannot be written; a file that was there is untouched.
    """
    first = axes if isinstance(axes, Axes) else axes[0]
    picture = io.BytesIO()
    first.figure.canvas.print_figure(picture, dpi=150, format="png")  # the whole figure's, in a subfigure too
    write_atomically(path, picture.getvalue())
