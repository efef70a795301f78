"""Plots of a fit: gates over epochs, and which inputs were kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayesprune.svi.result import Epoch, FitResult

UNDECIDED = (0.05, 0.95)


def plot_gates(result: FitResult, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Inclusion probabilities over the epochs, one panel a group, units sorted by when they died.

    Args:
        result: of a fit.
        axes: one for each group; by default they are made, and reached through ``.figure``.

    Returns:
        The axes. Each panel's vertical axis is the group's units, its horizontal one epochs; colour is
        q(z = 1).
    """
    groups = [(g.name, g.size) for g in result.gated.groups]
    theta = torch.stack([epoch.inclusion for epoch in result.history]).numpy()  # (epochs, units)
    chosen = list(axes) if axes is not None else _panels(len(groups))
    start, image = 0, None
    for ax, (name, size) in zip(chosen, groups, strict=True):
        part = theta[:, start : start + size]
        start += size
        order = np.lexsort((part.mean(0), part[-1] > 0.5))[::-1]
        image = ax.imshow(
            part[:, order].T, aspect="auto", interpolation="nearest", vmin=0, vmax=1, cmap="cividis",
            extent=(0.5, len(part) + 0.5, size, 0),
        )  # fmt: skip
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        kept = int((part[-1] > 0.5).sum())
        ax.set(title=f"{name}: {kept} of {size} kept", xlabel="epoch", ylabel="unit, longest-lived on top")
        if result.decided_at is not None:
            ax.axvline(result.decided_at, color="white", linestyle=":", linewidth=1.2)
    if axes is None and image is not None:
        figure = chosen[0].figure
        figure.colorbar(image, ax=chosen, label="inclusion probability q(z = 1)", fraction=0.04, pad=0.02)
        title = "Gates over epochs"
        if result.decided_at is not None:
            title += f"; all gates are decided in epoch {result.decided_at} (dotted)"
        figure.suptitle(title, fontsize=11)
    return chosen


def plot_inputs(result: FitResult, shape: tuple[int, int], ax: Axes | None = None) -> Axes:
    """Which inputs the network still reads, as an image.

    Args:
        result: of a fit on a network whose group ``input`` is gated.
        shape: (height, width) of the input image.
        ax: by default a new one.

    Returns:
        The axes.

    Raises:
        KeyError: the network has no gated inputs.
    """
    kept = result.gated.by_group(result.gated.inclusion_prob().detach().cpu())["input"].reshape(shape).numpy()
    ax = ax or Figure(figsize=(4, 4), layout="constrained").add_subplot()
    ax.imshow(kept, cmap="cividis", vmin=0, vmax=1)
    ax.set(title=f"{int((kept > 0.5).sum())} of {kept.size} inputs kept", xticks=[], yticks=[])
    return ax


def save_figure(axes: Sequence[Axes] | Axes, path: str) -> None:
    """Write the figure that some axes belong to, as a PNG.

    Args:
        axes: from one of the plots.
        path: file.
    """
    first = axes if isinstance(axes, Axes) else axes[0]
    first.figure.canvas.print_figure(path, dpi=150)  # the canvas is the whole figure's, in a subfigure too


def describe_history(history: Sequence[Epoch]) -> str:
    """The history as a table for a terminal: epoch, ELBO, units, undecided gates.

    Args:
        history: of a fit.

    Returns:
        One line an epoch, under a heading.
    """
    names = ("epoch", "ELBO (nats)", "NLL a row", "params %", "MACs %", "undecided", "units")
    lines = ["{:>5} {:>14} {:>10} {:>9} {:>7} {:>10}  {}".format(*names)]
    for e in history:
        size = f"{e.parameters_percent:9.2f} {e.macs_percent:7.2f} {e.undecided:10d}"
        units = "-".join(map(str, e.kept.values()))
        lines.append(f"{e.epoch:5d} {e.elbo:14,.0f} {e.nll:10.4f} {size}  {units}")
    return "\n".join(lines)


def _panels(number: int) -> list[Axes]:
    figure = Figure(figsize=(1.2 + 3.2 * number, 4.2), layout="constrained")
    return [figure.add_subplot(1, number, i + 1) for i in range(number)]
