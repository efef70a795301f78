"""The closed form of the error against Monte Carlo, and in cases that are known."""

import numpy as np
import pytest

from bayesprune.errors import TheoryError
from bayesprune.theory import (
    Committee,
    OrderParameters,
    fuse_nodes,
    generalisation_error,
    monte_carlo_error,
    order_parameters,
)

ALARM = 5.0  # standard errors: one false alarm in 1.7 million


@pytest.mark.parametrize("units", [1, 5, 20])
def test_monte_carlo(activation, units, pair):
    student, teacher = pair(activation, max(units, 2), 3, seed=units)
    student = Committee(student.weights[:units], student.readout[:units], activation)
    estimate, deviation = monte_carlo_error(student, teacher, 100_000, np.random.default_rng(1))
    assert abs(generalisation_error(order_parameters(student, teacher)) - estimate) < ALARM * deviation


def test_one_unit_by_hand():
    """½ E[(g(λ) − g(ρ))²] of two units of unit length: (1/π)(2 asin ½ − 2 asin(r/2)) and ½ (1 − E[gg] 2)."""
    one = np.ones((1, 1))
    erf = OrderParameters(one, 0.6 * one, one, np.ones(1), np.ones(1), "erf")
    assert generalisation_error(erf) == pytest.approx(2 / np.pi * (np.pi / 6 - np.arcsin(0.3)))
    relu = OrderParameters(one, 0 * one, one, np.ones(1), np.ones(1), "relu")
    assert generalisation_error(relu) == pytest.approx(0.5 - 1 / (2 * np.pi))


def test_a_perfect_student_errs_nowhere(activation, pair):
    _, teacher = pair(activation)
    assert generalisation_error(order_parameters(teacher, teacher)) == pytest.approx(0, abs=1e-14)


def test_order_and_splitting_of_units_do_not_matter(activation, pair):
    student, teacher = pair(activation)
    error = generalisation_error(order_parameters(student, teacher))
    turned = np.random.default_rng(0).permutation(student.units)
    same = Committee(student.weights[turned], student.readout[turned], activation)
    assert generalisation_error(order_parameters(same, teacher)) == pytest.approx(error)
    twice = Committee(np.tile(student.weights, (2, 1)), np.tile(student.readout / 2, 2), activation)
    assert generalisation_error(order_parameters(twice, teacher)) == pytest.approx(error)


def test_removed_units_have_no_readout(activation, pair):
    student, teacher = pair(activation)
    order = order_parameters(student, teacher)
    silent = student.with_readout(student.readout * np.isin(range(5), [1, 3]))
    kept = order.keep([1, 3])
    assert generalisation_error(kept) == pytest.approx(
        generalisation_error(order_parameters(silent, teacher))
    )
    assert kept.units == 2 and silent.parameters == 2 * 31


def test_all_units_kept_change_nothing(activation, order):
    found = order(activation)
    assert generalisation_error(fuse_nodes(found, [0, 1, 2, 3, 4])) == pytest.approx(
        generalisation_error(found)
    )


def test_fields_are_the_covariance_of_local_fields(pair):
    student, teacher = pair("erf", inputs=4)
    x = np.random.default_rng(0).standard_normal((200_000, 4))
    both = np.hstack([student.fields(x), teacher.fields(x)])
    order = order_parameters(student, teacher)
    assert order.fields == pytest.approx(both.T @ both / len(x), abs=0.05)
    assert order.contrast == pytest.approx([*student.readout, *-teacher.readout])


def test_misfits_are_all_named(pair):
    student, _ = pair("erf")
    other = pair("relu", inputs=7)[1]
    with pytest.raises(TheoryError, match=r"30 inputs and the teacher 7.*activations are erf and relu"):
        order_parameters(student, other)
    with pytest.raises(
        TheoryError, match=r"weights has shape \(3,\).*readout holds numbers that are not finite"
    ):
        Committee(np.ones(3), np.array([np.nan]))
    with pytest.raises(TheoryError, match=r"readout has shape \(3,\) for 2 units"):
        Committee(np.ones((2, 4)), np.ones(3))
    eye = np.eye(2)
    with pytest.raises(
        TheoryError, match=r"Q is not symmetric; R has shape \(2, 2\), not \(K, M\) = \(2, 1\)"
    ):
        OrderParameters([[1.0, 0.5], [0.0, 1.0]], eye, np.eye(1), np.ones(2), np.ones(1))
    with pytest.raises(TheoryError, match=r"T holds numbers that are not finite"):
        OrderParameters(eye, eye, eye * np.nan, np.ones(2), np.ones(2))
    with pytest.raises(
        TheoryError, match=r"Units \[0, 0\] cannot be kept: give different numbers from 0 to 1"
    ):
        OrderParameters(eye, eye, eye, np.ones(2), np.ones(2)).keep([0, 0])
    with pytest.raises(TheoryError, match=r"Inputs have shape \(2, 7\): give \(rows, 30\)"):
        student(np.ones((2, 7)))
    with pytest.raises(TheoryError, match="rows=1 cannot give a standard error"):
        monte_carlo_error(student, student, 1, np.random.default_rng(0))
