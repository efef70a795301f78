"""The inputs that are still read, where they lie in the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from bayesprune.errors import PosteriorError
from bayesprune.posterior.plots.colours import PROBABILITY
from bayesprune.posterior.plots.figures import panel
from bayesprune.posterior.plots.source import KEPT, source_of

INPUTS = "input"


def plot_inputs(
    source: Any,
    shape: Sequence[int] | None = None,
    ax: Axes | None = None,
    labels: Sequence[str] | None = None,
) -> Axes:
    """Which inputs the network still reads, as an image; with several fits or channels, how many of them.

    Args:
        source: of a fit, or of several, of a network whose group ``input`` is gated.
        shape: (height, width) of the input image, or (channels, height, width); by default a square, where
            the number of inputs is one, else a strip.
        ax: by default new ones.
        labels: what the fits are called; not shown here.

    Returns:
        The axes: of one fit, each input's q(z = 1); of several, the share of the fits that keep it; of
        several channels, the mean over them.

    Raises:
        KeyError: the network has no gated inputs.
        PosteriorError: the shape has another number of inputs.
    """
    given = source_of(source, labels)
    theta = given.inclusion()[INPUTS]  # (fits, inputs)
    size, fits = theta.shape[-1], len(theta)
    side = math.isqrt(size)
    chosen = tuple(shape or ((side, side) if side * side == size else (1, size)))
    if math.prod(chosen) != size or len(chosen) not in (2, 3):
        raise PosteriorError(
            f"shape={chosen} has {math.prod(chosen)} inputs, and the network has {size}: give (height, "
            "width), or (channels, height, width)."
        )
    kept = theta > KEPT
    values = (theta[0] if fits == 1 else kept.mean(0)).reshape(-1, *chosen[-2:]).mean(0)
    strip = 1 in chosen[-2:]
    ax = panel(ax, 4.4, 1.9 if strip else 4.0)
    image = ax.imshow(
        values, cmap=PROBABILITY, vmin=0, vmax=1, interpolation="nearest", aspect="auto" if strip else "equal"
    )
    ax.set(title=_title(kept.sum(-1), size), xticks=[], yticks=[])
    if strip:
        ax.set(xticks=range(size) if size <= 20 else [0, size - 1], xlabel="input, by number")
    else:
        ax.set(xlabel="column of the image", ylabel="row of the image")
    about = "inclusion probability q(z = 1)" if fits == 1 else f"share of {fits} fits that keep it"
    ax.figure.colorbar(image, ax=ax, label=about, location="bottom", fraction=0.05, pad=0.03)
    return ax


def _title(counts: np.ndarray[Any, Any], size: int) -> str:
    least, most = int(counts.min()), int(counts.max())
    number = str(least) if least == most else f"{least} to {most}"
    return f"{number} of {size} inputs kept"
