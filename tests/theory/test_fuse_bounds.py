"""Fusing is the best second layer; bounds hold on every student tried, and some are reached."""

import numpy as np
import pytest

from bayesprune.errors import TheoryError
from bayesprune.theory import (
    Committee,
    OrderParameters,
    Training,
    distortion,
    dpp_nodes,
    draw_committee,
    edge_distortion_bound,
    error_range,
    expected_error,
    expected_fused_error,
    fuse,
    fuse_nodes,
    generalisation_error,
    grams,
    important_nodes,
    magnitude_edges,
    masked,
    node_distortion_bound,
    node_kernel,
    order_parameters,
    random_edges,
    random_inclusion,
    random_nodes,
    redundant,
    simulate,
    subset_law,
    thinned,
    volume_distortion_bound,
)

SEEDS = range(40)
ROUNDING = 1 + 1e-9


def silenced(student, units):
    return student.with_readout(student.readout * np.isin(range(student.units), units))


def test_fusing_is_least_squares_on_many_rows(activation, pair):
    student, _ = pair(activation, inputs=5)
    pruned = masked(student, magnitude_edges(student, 12))
    x = np.random.default_rng(0).standard_normal((100_000, 5))
    sampled = np.linalg.lstsq(student.activation.value(pruned.fields(x)), student(x))[0]
    assert fuse(pruned, student).readout == pytest.approx(sampled, abs=0.05)


def test_no_second_layer_is_closer_than_the_fused_one(activation, pair):
    rng = np.random.default_rng(0)
    student, _ = pair(activation)
    pruned = masked(student, random_edges(student, 60, rng))
    best = fuse(pruned, student)
    least = distortion(order_parameters(best, student))
    assert least < distortion(order_parameters(pruned, student))
    for _ in range(20):
        other = best.with_readout(best.readout + 0.1 * rng.standard_normal(5))
        assert distortion(order_parameters(other, student)) > least


def test_nodes_fuse_alike_as_networks_and_as_order_parameters(activation, pair):
    student, teacher = pair(activation)
    by_order = fuse_nodes(order_parameters(student, teacher), [0, 3, 4])
    mask = np.isin(range(5), [0, 3, 4])[:, None] & np.ones(30, bool)
    network = fuse(masked(student, mask), student)
    assert network.readout[[0, 3, 4]] == pytest.approx(by_order.readout)
    assert network.readout[[1, 2]] == pytest.approx([0, 0])
    assert generalisation_error(by_order) == pytest.approx(
        generalisation_error(order_parameters(network, teacher))
    )


def prunings(student, kept, rng):
    """Pruned students, by every rule, as they are and fused; and each one's bound on its distortion."""
    order = order_parameters(student, student)
    whole = np.ones(student.inputs, bool)
    for units in (random_nodes(order, kept, rng), important_nodes(order, kept), dpp_nodes(order, kept, rng)):
        plain = masked(silenced(student, units), np.isin(range(student.units), units)[:, None] & whole)
        bound = node_distortion_bound(order, units)
        yield from ((plain, bound), (fuse(plain, student), bound))
    edges = kept * student.inputs // 2
    for mask in (random_edges(student, edges, rng), magnitude_edges(student, edges)):
        plain = masked(student, mask)
        bound = edge_distortion_bound(order, (student.weights**2 * ~mask).mean(1))
        yield from ((plain, bound), (fuse(plain, student), bound))


def check_bounds(student, teacher, rng):
    before = generalisation_error(order_parameters(student, teacher))
    for pruned, bound in prunings(student, int(rng.integers(1, student.units)), rng):
        changed = distortion(order_parameters(pruned, student))
        after = generalisation_error(order_parameters(pruned, teacher))
        assert changed <= bound * ROUNDING
        low, high = error_range(before, changed)
        assert low / ROUNDING - 1e-12 <= after <= high * ROUNDING


@pytest.mark.parametrize("seed", SEEDS)
def test_bounds_are_never_violated(activation, seed, pair):
    rng = np.random.default_rng(seed)
    check_bounds(*pair(activation, int(rng.integers(2, 8)), 3, seed=seed), rng)


def test_bounds_on_trained_students(activation):
    """Students as learning leaves them, early and late: redundant, some units nearly dead."""
    rng = np.random.default_rng(0)
    teachers = [draw_committee(2, 60, rng, 2.0, activation) for _ in range(6)]
    students = [draw_committee(6, 60, rng, rng.standard_normal(6), activation, 0.5) for _ in teachers]
    training = Training(0.5 if activation == "erf" else 0.1)
    for time in (5.0, 60.0):
        trained, _ = simulate(students, teachers, [time], training)
        for student, teacher in zip(trained, teachers, strict=True):
            check_bounds(student, teacher, rng)
            own = order_parameters(student, student)
            for kept in range(1, 6):
                assert (
                    expected_fused_error(own, kept) <= volume_distortion_bound(own, kept) * ROUNDING + 1e-12
                )


@pytest.mark.parametrize("seed", SEEDS)
def test_volume_bound_holds_for_every_size(activation, seed, order):
    """E δ of fused k-DPP nodes: the student is its own teacher, so that errors are distortions."""
    found = order(activation, 6, seed=seed)
    own = OrderParameters(found.Q, found.Q, found.Q, found.readout, found.readout, activation)
    for kept in range(1, 7):
        assert expected_fused_error(own, kept) <= volume_distortion_bound(own, kept) * ROUNDING + 1e-12


def test_the_volume_bound_is_reached():
    """A unit much weaker than the other, which alone is read: to keep the strong one loses all of v."""
    weak = order_parameters(
        Committee(np.diag([1e3, 1e-3]), np.array([0.0, 1.0])), Committee(np.eye(2), np.ones(2))
    )
    own = OrderParameters(weak.Q, weak.Q, weak.Q, weak.readout, weak.readout)
    bound = volume_distortion_bound(own, 1)
    assert bound == pytest.approx(0.5 * grams(own).student[1, 1])
    assert expected_fused_error(own, 1) == pytest.approx(bound, rel=1e-5)
    assert volume_distortion_bound(own, 2) == 0


def test_edge_bound_in_expectation(order):
    """A bound with D_i = (1 − p) Q_ii is on the mean over masks."""
    found = order("erf")
    p = 0.4
    own = OrderParameters(found.Q, found.Q, found.Q, found.readout, found.readout, "erf")
    assert generalisation_error(thinned(own, p)) <= edge_distortion_bound(found, (1 - p) * np.diag(found.Q))


@pytest.mark.parametrize("copies", [2, 3])
def test_redundant_students(copies):
    """k = M diverse units replace z copies each without loss; random ones miss some, with known odds."""
    units, readout = 3, np.array([1.0, 2.0, -1.5])
    student = redundant(np.eye(units), readout, copies)
    assert generalisation_error(student) == pytest.approx(0, abs=1e-14)
    assert expected_fused_error(student, units) == pytest.approx(0, abs=1e-12)
    subsets, probability = subset_law(units * copies, units, node_kernel(student))
    one_each = np.array([len({i // copies for i in subset}) == units for subset in subsets.tolist()])
    assert probability[one_each].sum() == pytest.approx(1)

    subsets, probability = subset_law(units * copies, units)
    fused = probability @ [generalisation_error(fuse_nodes(student, list(subset))) for subset in subsets]
    missed = np.mean([0 not in {i // copies for i in subset} for subset in subsets.tolist()])
    silence = 0.5 * readout @ grams(student).teacher @ readout
    assert fused == pytest.approx(missed * silence)


def test_random_nodes_of_a_student_without_redundancy():
    """Orthogonal units, each with one of the teacher's: a share 1 − k/K of the teacher's power is lost."""
    student = redundant(np.eye(4), np.array([1.0, 2.0, 0.5, 1.0]), 1)
    silence = 0.5 * student.readout @ grams(student).student @ student.readout
    assert expected_error(student, random_inclusion(4, 3)) == pytest.approx(silence / 4)


def test_bad_input(order):
    found = order("erf")
    with pytest.raises(TheoryError, match="An error of -1 and a distortion of 0: both are at least 0"):
        error_range(-1, 0)
    with pytest.raises(TheoryError, match=r"lost has shape \(2,\)"):
        edge_distortion_bound(found, np.ones(2))
    with pytest.raises(TheoryError, match="Cannot keep 9 of 5 units"):
        volume_distortion_bound(found, 9)
    with pytest.raises(TheoryError, match=r"Units \[7\] cannot be kept"):
        node_distortion_bound(found, [7])
    with pytest.raises(TheoryError, match="copies=0: give a whole number, at least 1"):
        redundant(np.eye(2), np.ones(2), 0)
    with pytest.raises(TheoryError, match="Cannot keep 0 of 5 units"):
        fuse_nodes(found, [])
