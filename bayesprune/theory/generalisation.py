"""The generalisation error: in closed form from order parameters, and by Monte Carlo from two networks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesprune.errors import TheoryError
from bayesprune.theory.activation import Activation, Array
from bayesprune.theory.committee import Committee
from bayesprune.theory.order import OrderParameters, order_parameters


@dataclass(frozen=True)
class Grams:
    """Second moments of the units' activations, E[g(a) g(b)].

    Args:
        student: (K, K), among the student's units.
        cross: (K, M), student with teacher.
        teacher: (M, M), among the teacher's units.
    """

    student: Array
    cross: Array
    teacher: Array


def overlaps(cross: Array, a: Array, b: Array, activation: Activation) -> Array:
    """E[g(a_i) g(b_j)] for two families of local fields.

    Args:
        cross: (I, J), covariances of the fields.
        a: (I,), variances.
        b: (J,), variances.
        activation: g.

    Returns:
        (I, J).
    """
    return activation.overlap(cross, a[:, None], b[None, :])


def grams(order: OrderParameters) -> Grams:
    """Second moments of all units' activations, in closed form.

    Args:
        order: Q, R, T.

    Returns:
        The arcsine matrices for erf, the arc-cosine ones for ReLU.
    """
    q, t, g = np.diag(order.Q), np.diag(order.T), order.activation
    return Grams(overlaps(order.Q, q, q, g), overlaps(order.R, q, t, g), overlaps(order.T, t, t, g))


def generalisation_error(order: OrderParameters) -> float:
    r"""Half the mean squared difference of student and teacher on fresh inputs, in closed form.

    .. math:: \varepsilon = \tfrac12 E\big[(\varphi_{student} - \varphi_{teacher})^2\big]
              = \tfrac12 \big(v^\top G^{ss} v - 2 v^\top G^{st} v^* + v^{*\top} G^{tt} v^*\big)

    where G are the matrices of :func:`grams`. The teacher's output noise is left out.

    Args:
        order: Q, R, T, v, v*; of a pruned student: what pruning made of them.

    Returns:
        ε, at least 0 (rounding below 0 is put at 0).

    Source: for erf, Saad & Solla (1995), with second layers Goldt et al., NeurIPS 2019.

    Example:
        >>> from bayesprune.theory import OrderParameters
        >>> one = np.ones((1, 1))
        >>> generalisation_error(OrderParameters(one, one, one, np.ones(1), np.ones(1)))
        0.0
        >>> nothing = OrderParameters(one, 0 * one, one, np.zeros(1), np.ones(1))
        >>> round(generalisation_error(nothing), 6)  # asin(1/2) / π
        0.166667
    """
    g, v, u = grams(order), order.readout, order.teacher_readout
    value = 0.5 * (v @ g.student @ v - 2 * v @ g.cross @ u + u @ g.teacher @ u)
    return max(float(value), 0.0)


def monte_carlo_error(
    student: Committee, teacher: Committee, rows: int, rng: np.random.Generator, block: int = 10_000
) -> tuple[float, float]:
    """The same error, estimated on drawn inputs.

    Args:
        student: of any activation.
        teacher: on the same inputs.
        rows: inputs to draw, at least 2.
        rng: of the inputs.
        block: inputs drawn at a time.

    Returns:
        The estimate, and its standard error.

    Raises:
        TheoryError: student and teacher do not fit together, or there are too few rows.
    """
    order_parameters(student, teacher)  # says what does not fit
    if rows < 2:
        raise TheoryError(f"rows={rows} cannot give a standard error: draw at least 2.")
    halves = []
    for start in range(0, rows, block):
        x = rng.standard_normal((min(block, rows - start), student.inputs))
        halves.append(0.5 * (student(x) - teacher(x)) ** 2)
    values = np.concatenate(halves)
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(rows))
