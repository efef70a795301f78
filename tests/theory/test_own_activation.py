"""An activation of one's own: linear units, whose theory fits on a line, through every closed form."""

import numpy as np
import pytest

from bayesprune.theory import (
    Activation,
    OrderParameters,
    Training,
    drift,
    expected_error,
    generalisation_error,
    random_inclusion,
    redundant,
    thinned,
)

LINEAR = Activation(
    name="linear",
    value=lambda x: x,
    slope=np.ones_like,
    overlap=lambda cross, a, b: np.asarray(cross + 0 * a * b),
    slopes=lambda cross, a, b: np.ones(np.broadcast(cross, a, b).shape),
    curvature=lambda cross, a, b: np.zeros(np.broadcast(cross, a, b).shape),
    lipschitz=1.0,
)


@pytest.mark.parametrize("copies", [1, 3])
def test_edges_of_redundant_linear_students(copies):
    """½‖t‖² ((1 − p)² + p (1 − p) / z), as docs/statistical_mechanics.md has it."""
    student = redundant(np.eye(2), np.array([1.0, 2.0]), copies, LINEAR)
    for p in (0.2, 0.5):
        lost = (1 - p) ** 2 + p * (1 - p) / copies
        assert generalisation_error(thinned(student, p)) == pytest.approx(2.5 * lost)


def test_balanced_nodes_of_redundant_linear_students():
    """A third of three copies each: (1 − p)²; at random, more."""
    student = redundant(np.eye(2), np.array([1.0, 2.0]), 3, LINEAR)
    assert generalisation_error(student.keep([0, 3])) == pytest.approx(2.5 * (2 / 3) ** 2)
    assert expected_error(student, random_inclusion(6, 2)) > 2.5 * (2 / 3) ** 2


def test_the_equations_of_linear_units():
    """With one unit each: dR = −η v (v R − v* T), dQ = −2 η v (v Q − v* R) + η² v² (2 ε + σ²)."""
    q, r, t, v, u, rate, noise = 0.8, 0.3, 1.2, 0.7, 1.5, 0.4, 0.3
    one = np.ones((1, 1))
    order = OrderParameters(q * one, r * one, t * one, [v], [u], LINEAR)
    of_q, of_r, of_readout = drift(order, Training(rate, 0.2, noise))
    assert of_r[0, 0] == pytest.approx(-rate * v * (v * r - u * t))
    assert of_readout[0] == pytest.approx(-0.2 * (v * q - u * r))
    second = rate**2 * v**2 * (2 * generalisation_error(order) + noise**2)
    assert of_q[0, 0] == pytest.approx(-2 * rate * v * (v * q - u * r) + second, rel=1e-3)
