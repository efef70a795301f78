"""A course of learning: order parameters over time, from a simulation or from the equations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bayesprune.errors import TheoryError
from bayesprune.theory.activation import Array
from bayesprune.theory.generalisation import generalisation_error
from bayesprune.theory.order import OrderParameters


@dataclass(frozen=True)
class Trajectory:
    """Order parameters at some times.

    Args:
        times: (n,), α = steps / inputs.
        orders: n states.
    """

    times: Array
    orders: list[OrderParameters]

    @property
    def errors(self) -> Array:
        """(n,), the generalisation error at each time, in closed form."""
        return np.array([generalisation_error(order) for order in self.orders])

    @property
    def last(self) -> OrderParameters:
        """The state at the end."""
        return self.orders[-1]


def checked_times(times: Sequence[float] | Array) -> Array:
    """Times to record, checked.

    Args:
        times: α at least 0, rising.

    Returns:
        (n,).

    Raises:
        TheoryError: there are none, or they are not finite, negative, or do not rise.
    """
    found = np.asarray(times, np.float64)
    if found.ndim != 1 or not found.size:
        raise TheoryError(f"times has shape {found.shape}: give at least one time, in a row.")
    if not np.isfinite(found).all() or found[0] < 0 or (np.diff(found) <= 0).any():
        raise TheoryError(f"times {found.tolist()}: give finite ones, at least 0, each above the one before.")
    return found
