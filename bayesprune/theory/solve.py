"""The equations of the order parameters, solved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.integrate import solve_ivp

from bayesprune.errors import DivergedError
from bayesprune.theory.activation import Array
from bayesprune.theory.flow import drift
from bayesprune.theory.order import OrderParameters
from bayesprune.theory.training import Training
from bayesprune.theory.trajectory import Trajectory, checked_times

BEYOND = 1e6  # how many times its largest number at the start a state may reach
MOST = 500_000  # evaluations of the right-hand side


def solve(
    start: OrderParameters,
    times: Sequence[float] | Array,
    training: Training | None = None,
    tolerance: float | None = None,
) -> Trajectory:
    """What on-line learning does in the limit of many inputs, from the differential equations.

    The step length is adapted (Dormand & Prince's Runge-Kutta of order 5). With ReLU the term of second order
    in the learning rate comes from a fixed quadrature, whose error of about 1 in 1,000 bounds what the
    solution can be trusted to; erf's equations are exact.

    Args:
        start: order parameters at α = 0.
        times: α = steps / inputs at which to record, rising, from 0.
        training: learning rates and noise.
        tolerance: relative error of a step; by default 1e-6 in closed form and 1e-4 with the quadrature.

    Returns:
        The trajectory.

    Raises:
        TheoryError: the times do not rise.
        DivergedError: the solution leaves all bounds, as it does at too large a learning rate.

    Example:
        >>> one = np.ones((1, 1))
        >>> start = OrderParameters(0.5 * one, 0.1 * one, one, np.ones(1), np.ones(1))
        >>> learned = solve(start, [0.0, 50.0], Training(learning_rate=0.5, readout_rate=0.0))
        >>> learned.errors.round(3).tolist()
        [0.238, 0.0]
    """
    moments = checked_times(times)
    settings = training or Training()
    shape = _Shape(start)
    accuracy = tolerance or (1e-6 if start.activation.tilts else 1e-4)

    first = shape.flat(start.Q, start.R, start.readout)
    end = max(float(moments[-1]), 1e-12)
    beyond = BEYOND * (1 + float(np.abs(first).max()))

    calls = 0

    def rates(time: float, state: Array) -> Array:
        nonlocal calls
        calls += 1
        if calls > MOST:
            raise DivergedError(
                f"The equations are still at α = {time:.3g} of {end:.3g} after {MOST:,} evaluations: at "
                f"learning rate {settings.learning_rate} they are too stiff. Try a smaller one."
            )
        if not np.abs(state).max() < beyond:  # NaN too
            raise DivergedError(
                f"The order parameters leave all bounds near α = {time:.3g} at learning rate "
                f"{settings.learning_rate}: try a smaller one."
            )
        return shape.flat(*drift(shape.order(state), settings))

    found = solve_ivp(
        rates, (0.0, end), first, t_eval=np.minimum(moments, end), rtol=accuracy, atol=accuracy * 1e-3
    )
    if not found.success:
        raise DivergedError(
            f"The equations could not be followed to α = {end:.3g} at learning rate "
            f"{settings.learning_rate}: {found.message}"
        )
    return Trajectory(moments, [shape.order(state) for state in found.y.T])


class _Shape:
    """Order parameters as one vector, Q by its upper triangle, and back."""

    def __init__(self, start: OrderParameters) -> None:
        self.start = start
        self.upper = np.triu_indices(start.units)

    def flat(self, q: Array, r: Array, readout: Array) -> Array:
        return np.concatenate([q[self.upper], r.ravel(), readout])

    def order(self, state: Array) -> OrderParameters:
        units, pairs = self.start.units, len(self.upper[0])
        q = np.zeros((units, units))
        q[self.upper] = q.T[self.upper] = state[:pairs]
        r = state[pairs:-units].reshape(self.start.R.shape)
        return self.start.with_student(q, r).with_readout(state[-units:])
