"""Edge pruning: masks, equal sizes, expected order parameters against every mask and large students."""

from itertools import product

import numpy as np
import pytest
from scipy.integrate import dblquad
from scipy.stats import multivariate_normal

from bayesprune.errors import TheoryError
from bayesprune.theory import (
    Committee,
    clipped,
    draw_committee,
    equal_edges,
    fuse,
    generalisation_error,
    magnitude_edges,
    masked,
    order_parameters,
    random_edges,
    thinned,
)
from bayesprune.theory.clipped import _moment


@pytest.mark.parametrize("kept", [1, 3, 5])
def test_equal_sizes(kept, pair):
    student, _ = pair("erf")
    edges = equal_edges(student.units, student.inputs, kept)
    nodes = student.with_readout(student.readout * (np.arange(5) < kept))
    by_edges = masked(student, random_edges(student, edges, np.random.default_rng(0)))
    assert by_edges.parameters == nodes.parameters == kept * 31


def test_magnitude_keeps_the_largest(pair):
    student, _ = pair("erf")
    mask = magnitude_edges(student, 40)
    assert mask.sum() == 40
    assert np.abs(student.weights[mask]).min() >= np.abs(student.weights[~mask]).max()


def test_random_masks_are_uniform(pair):
    """Each edge as often as any other; one false alarm in 1.7 million for each."""
    student, _ = pair("erf", inputs=6)
    rng = np.random.default_rng(0)
    counts = sum(random_edges(student, 10, rng).astype(int) for _ in range(3000))
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(3000 * 2 / 9)


def test_thinning_is_exact_in_expectation():
    """All 2⁶ masks of a student with 2 × 3 edges, and the variances of the module's docstring."""
    rng, p, d = np.random.default_rng(1), 0.3, 3
    student, teacher = draw_committee(2, d, rng), draw_committee(2, d, rng)
    found = thinned(order_parameters(student, teacher), p)
    masks = np.array(list(product([False, True], repeat=6))).reshape(-1, 2, 3)
    probability = np.prod(np.where(masks, p, 1 - p), axis=(1, 2))
    orders = [order_parameters(masked(student, mask), teacher) for mask in masks]
    q, r = (np.array([getattr(order, name) for order in orders]) for name in "QR")
    assert pytest.approx(np.einsum("m,mij->ij", probability, q)) == found.Q
    assert pytest.approx(np.einsum("m,mij->ij", probability, r)) == found.R
    w, b = student.weights, teacher.weights
    of_r = p * (1 - p) / d**2 * (w**2) @ (b**2).T
    assert np.einsum("m,mij->ij", probability, (r - found.R) ** 2) == pytest.approx(of_r)
    of_q = p**2 * (1 - p**2) / d**2 * (w**2) @ (w**2).T
    np.fill_diagonal(of_q, p * (1 - p) / d**2 * (w**4).sum(1))
    assert np.einsum("m,mij->ij", probability, (q - found.Q) ** 2) == pytest.approx(of_q)


@pytest.mark.parametrize("keep", [0.15, 0.6])
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("rule", ["random", "magnitude"])
def test_large_students_reach_the_limit(activation, keep, fused, rule):
    """d = 20,000, correlated units, one of them almost a copy and one small; 1/√d is 0.007."""
    rng, d = np.random.default_rng(0), 20_000
    teacher = draw_committee(2, d, rng, 1.0, activation)
    weights = rng.standard_normal((4, d)) + teacher.weights[:1]
    weights[1] = -weights[0] + 0.05 * weights[1]
    weights[2] *= 0.6
    student = Committee(weights, np.array([1.0, -0.8, 0.5, 0.7]), activation)
    order, edges = order_parameters(student, teacher), round(keep * weights.size)
    mask = random_edges(student, edges, rng) if rule == "random" else magnitude_edges(student, edges)
    pruned = masked(student, mask)
    pruned = fuse(pruned, student) if fused else pruned
    found = order_parameters(pruned, teacher)
    limit = (thinned if rule == "random" else clipped)(order, keep, fused)
    for name, tolerance in (("Q", 0.06), ("R", 0.06), ("readout", 0.15)):
        assert getattr(found, name) == pytest.approx(getattr(limit, name), abs=tolerance), name
    assert generalisation_error(found) == pytest.approx(generalisation_error(limit), rel=0.05)


@pytest.mark.parametrize(("s", "t", "r"), [(0.3, 0.8, 0.6), (1.2, 0.5, -0.7), (0.7, 0.7, 0.0)])
def test_truncated_moment(s, t, r):
    """E[XY; X > s, Y > t] against numerical integration."""
    density = multivariate_normal([0, 0], [[1, r], [r, 1]]).pdf
    numeric = dblquad(lambda y, x: x * y * density([x, y]), s, 9, t, 9, epsabs=1e-9)[0]
    assert _moment(*map(np.array, (s, t, r))) == pytest.approx(numeric, abs=1e-8)


def test_keeping_every_edge_changes_nothing(activation, order):
    found = order(activation)
    for rule in (thinned, clipped):
        same = rule(found, 1.0)
        assert (same.Q == found.Q).all() and (same.R == found.R).all()


def test_bad_input(pair, order):
    student, _ = pair("erf")
    for edges in (0, 151, 3.5):
        with pytest.raises(TheoryError, match=f"Cannot keep {edges} of 150 edges"):
            magnitude_edges(student, edges)
    with pytest.raises(TheoryError, match=r"The mask has shape \(2, 2\): give \(5, 30\)"):
        masked(student, np.ones((2, 2), bool))
    with pytest.raises(TheoryError, match="1 of 6 units on 4 inputs leave -1 edges after 6 readouts"):
        equal_edges(6, 4, 1)
    for rule in (thinned, clipped):
        with pytest.raises(TheoryError, match=r"keep=0: the share of edges that stay lies in \(0, 1\]"):
            rule(order("erf"), 0)
    dead = order("erf").with_student(np.diag([0.0, 1, 1, 1, 1]), order("erf").R)
    with pytest.raises(TheoryError, match=r"Units \[0\] have no weights"):
        clipped(dead, 0.5)
