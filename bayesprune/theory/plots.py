"""Plots of learning: the simulation and the equations on one pair of axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesprune.errors import TheoryError
from bayesprune.theory.trajectory import Trajectory

FLOOR = 1e-12  # what is below does not show on a logarithmic axis


def plot_learning(
    simulated: Sequence[Trajectory], equations: Sequence[Trajectory], ax: Axes | None = None
) -> Axes:
    """Generalisation error over time, of simulated students (dots) and of the equations (lines).

    Args:
        simulated: from :func:`bayesprune.theory.simulate`; may be empty.
        equations: from :func:`bayesprune.theory.solve`; may be empty. The i-th has the i-th dots' colour.
        ax: by default a new one.

    Returns:
        The axes: steps over inputs horizontally, half the mean squared error vertically, both logarithmic.

    Raises:
        TheoryError: there is nothing to draw.
    """
    if not simulated and not equations:
        raise TheoryError("plot_learning has nothing to draw: give at least one trajectory.")
    ax = ax or Figure(figsize=(6, 4.2), layout="constrained").add_subplot()
    for index, course in enumerate(equations):
        label = "equations" if index == 0 else None
        ax.plot(_shown(course), _positive(course), color=f"C{index % 10}", linewidth=1.2, label=label)
    for index, course in enumerate(simulated):
        label = "simulation" if index == 0 else None
        color = f"C{index % 10}"
        ax.plot(_shown(course), _positive(course), "o", color=color, markersize=3.5, label=label)
    ax.set(xscale="log", yscale="log", xlabel="α, steps / inputs", ylabel="generalisation error ε")
    ax.legend(frameon=False)
    return ax


def _shown(course: Trajectory) -> np.ndarray:
    times = course.times
    positive = times[times > 0]
    first = positive[0] / 3 if positive.size else 1.0
    return np.where(times > 0, times, first)  # α = 0 has no place on a logarithmic axis


def _positive(course: Trajectory) -> np.ndarray:
    return np.maximum(course.errors, FLOOR)
