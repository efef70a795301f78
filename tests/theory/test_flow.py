"""The equations: every term against Monte Carlo, the solution against simulated students."""

import numpy as np
import pytest

from bayesprune.errors import DivergedError, TheoryError
from bayesprune.theory import (
    Committee,
    Students,
    Training,
    drift,
    generalisation_error,
    order_parameters,
    redundant,
    simulate,
    solve,
    step_,
)
from bayesprune.theory.fluctuation import _integrated, fluctuation

ALARM = 5.0  # standard errors: one false alarm in 1.7 million for each number
TRAINING = Training(learning_rate=0.4, readout_rate=0.3, noise=0.5)


def one_step(student, teacher, training, draws):
    """Changes of R, Q and v in a step, times d, for many inputs: (draws, …) each."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((draws, student.inputs))
    state = Students(
        np.repeat(student.weights[None], draws, 0),
        np.repeat(student.readout[None], draws, 0),
        student.activation,
    )
    step_(state, x, teacher(x) + training.noise * rng.standard_normal(draws), training)
    r = state.weights @ teacher.weights.T - student.weights @ teacher.weights.T
    q = state.weights @ state.weights.mT - student.weights @ student.weights.T
    return r, q, student.inputs * (state.readout - student.readout)


def test_the_expected_step_is_the_drift(activation, pair):
    """R and v exactly at any d; Q up to the fluctuation of |x|²/d around 1, small against the sum."""
    student, teacher = pair(activation, 3, 2, inputs=80)
    of_q, of_r, of_readout = drift(order_parameters(student, teacher), TRAINING)
    r, q, readout = one_step(student, teacher, TRAINING, 40_000)
    for found, sample, bias in ((of_r, r, 0), (of_readout, readout, 0), (of_q, q, 0.05)):
        deviation = sample.std(0) / np.sqrt(len(sample))
        assert (np.abs(sample.mean(0) - found) < ALARM * deviation + bias * np.abs(found).max()).all()


def test_second_order_term(activation, order):
    """E[g'(λ_i) g'(λ_k) Δ²] against drawn fields; the fixed quadrature against the closed form."""
    found = order(activation, 4, 2)
    rng = np.random.default_rng(0)
    z = rng.multivariate_normal(np.zeros(6), found.fields, 200_000)
    slopes = found.activation.slope(z[:, :4])
    difference = found.activation.value(z) @ found.contrast
    products = slopes[:, :, None] * slopes[:, None, :] * (difference**2)[:, None, None]
    deviation = products.std(0) / np.sqrt(len(z))
    exact = fluctuation(found.fields, found.contrast, 4, found.activation)
    quadrature = _integrated(found.fields, found.contrast, 4, found.activation)
    assert (np.abs(products.mean(0) - exact) < ALARM * deviation + 2e-3 * exact.max()).all()
    assert quadrature == pytest.approx(exact, abs=5e-3 * exact.max())
    assert exact == pytest.approx(exact.T)


@pytest.mark.parametrize("readout_rate", [0.0, 0.3], ids=["v fixed", "v trained"])
def test_simulation_follows_the_equations(activation, readout_rate, pair):
    """Eight students from one start on fresh inputs: their mean is the solution, up to noise and O(1/d)."""
    student, teacher = pair(activation, 3, 2, inputs=300, seed=3)
    training = Training(0.3 if activation == "erf" else 0.1, readout_rate, noise=0.2)
    times = [0.0, 1.0, 4.0, 12.0]
    _, courses = simulate([student] * 8, [teacher] * 8, times, training, seed=1)
    predicted = solve(order_parameters(student, teacher), times, training)
    for name in ("Q", "R", "readout"):
        values = np.array([[getattr(order, name) for order in course.orders] for course in courses])
        expected = np.array([getattr(order, name) for order in predicted.orders])
        deviation = values.std(0, ddof=1) / np.sqrt(8)
        assert (np.abs(values.mean(0) - expected) < 8 * deviation + 0.03).all(), name
    if not readout_rate:
        assert (predicted.last.readout == student.readout).all()
    errors = np.mean([course.errors for course in courses], axis=0)
    assert predicted.errors == pytest.approx(errors, rel=0.15)
    assert predicted.errors[-1] < 0.5 * predicted.errors[0]


def test_a_student_of_its_teachers_size_learns_it():
    rng = np.random.default_rng(0)
    start = order_parameters(
        Committee(rng.standard_normal((2, 200)), np.ones(2)),
        Committee(rng.standard_normal((2, 200)), np.ones(2)),
    )
    learned = solve(start, [0.0, 1000.0], Training(0.5, 0.0))
    assert learned.errors[0] > 0.1 and learned.errors[-1] < 1e-5
    assert np.sort(np.abs(learned.last.R), 0)[-1] == pytest.approx(np.diag(start.T), abs=0.02)


def test_noise_leaves_an_error_that_grows_with_the_learning_rate():
    perfect = redundant(np.eye(2), np.ones(2), copies=1)
    low, high = (solve(perfect, [100.0], Training(rate, 0.0, 0.3)).errors[-1] for rate in (0.1, 0.5))
    assert 1e-3 < low < 0.3 * high


def test_nothing_moves_without_a_learning_rate(order):
    start = order("erf")
    assert solve(start, [0.0, 5.0], Training(0.0)).errors == pytest.approx([generalisation_error(start)] * 2)


def test_same_seed_same_course(pair):
    student, teacher = pair("erf")
    runs = [simulate([student], [teacher], [1.0], seed=seed)[0][0].weights for seed in (0, 0, 1)]
    assert (runs[0] == runs[1]).all() and (runs[0] != runs[2]).any()


def test_bad_settings(pair):
    student, teacher = pair("erf")
    with pytest.raises(
        TheoryError, match="learning_rate=-1, readout_rate=-1, noise=inf: give finite numbers"
    ):
        Training(-1, noise=float("inf"))
    with pytest.raises(
        TheoryError, match=r"times .*: give finite ones, at least 0, each above the one before"
    ):
        simulate([student], [teacher], [1.0, 0.5])
    with pytest.raises(TheoryError, match=r"times has shape \(0,\): give at least one time"):
        solve(order_parameters(student, teacher), [])
    with pytest.raises(TheoryError, match="2 students and 1 teachers: give one teacher a student"):
        simulate([student] * 2, [teacher], [1.0])
    with pytest.raises(TheoryError, match="The students differ in shape or activation"):
        simulate([student, pair("erf", 4)[0]], [teacher] * 2, [1.0])


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
def test_divergence_is_an_error(pair):
    student, teacher = pair("relu")
    wild = Training(50.0, 0.0)
    with pytest.raises(
        DivergedError, match=r"Weights became infinite before α = .* at learning rate 50.0: try"
    ):
        simulate([student], [teacher], [100.0], wild)
    with pytest.raises(DivergedError, match=r"leave all bounds near α = .* at learning rate 50.0"):
        solve(order_parameters(student, teacher), [0.0, 100.0], wild)
