"""DPP edges at independent inputs: determinants in closed form, draws as enumerated."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

import bayesprune.theory as th
from bayesprune.errors import TheoryError
from bayesprune.selection import KDPP
from bayesprune.selection.dpp.kernel import edge_distances, kernel_of
from bayesprune.selection.dpp.sample import log_polynomials
from bayesprune.theory.dpp_edges import edge_kernel, log_sums

FALSE_ALARM = 1e-4
"""Probability with which one of the χ² tests fails although the sampler is right; seeds are fixed."""

WEIGHTS = np.array([0.1, -1.2, 0.6, 0.0, 2.0, -0.4])


def student(weights):
    weights = np.atleast_2d(weights)
    return th.Committee(weights, np.ones(len(weights)))


def test_the_kernel_is_that_of_the_rule_at_independent_inputs():
    """Of its Gram matrix, n I for many rows; the median with it."""
    for beta in (0.7, "median"):
        distances = edge_distances(WEIGHTS, np.eye(6))
        a, c = edge_kernel(WEIGHTS, beta, jitter=0.01)
        expected = kernel_of(distances, beta, 1) + 0.01 * np.eye(6)
        np.testing.assert_allclose(np.outer(a, a) + np.diag(c), expected, atol=1e-12)


@pytest.mark.parametrize("jitter", [0.0, 0.01])
def test_sums_of_determinants_are_polynomials_of_the_eigenvalues(jitter):
    a, c = edge_kernel(WEIGHTS, 0.7, jitter)
    kernel = np.outer(a, a) + np.diag(c)
    even, one = log_sums(a, c, 6)
    expected = log_polynomials(np.linalg.eigvalsh(kernel), 6)[:, -1]
    np.testing.assert_allclose(np.logaddexp(even[:, -1], one[:, -1]), expected, atol=1e-10)
    for k in (1, 3, 5):
        sums = [np.linalg.det(kernel[np.ix_(s, s)]) for s in combinations(range(6), k)]
        assert np.logaddexp(even[k, -1], one[k, -1]) == pytest.approx(np.log(np.sum(sums)), abs=1e-9)


@pytest.mark.parametrize("beta", [0.3, "median"])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_draws_have_the_enumerated_probabilities(beta, k):
    rng, draws = np.random.default_rng(5), 4_000
    a, c = edge_kernel(WEIGHTS, beta)
    kernel = np.outer(a, a) + np.diag(c)
    chances = {s: np.linalg.det(kernel[np.ix_(s, s)]) for s in combinations(range(6), k)}
    units = student(np.tile(WEIGHTS, (draws, 1)))
    masks = th.dpp_edges(units, draws * k, rng, beta)
    drawn = Counter(tuple(np.flatnonzero(mask).tolist()) for mask in masks)
    expected = np.array(list(chances.values())) / sum(chances.values()) * draws
    seen = np.array([drawn[s] for s in chances])
    small = expected < 5  # taken together
    seen, expected = (np.append(n[~small], n[small].sum()) for n in (seen, expected))
    seen, expected = seen[expected > 0], expected[expected > 0]
    assert seen.sum() == draws
    assert stats.chisquare(seen, expected * draws / expected.sum()).pvalue > FALSE_ALARM


def test_large_students_are_drawn_as_the_general_sampler_draws_them():
    """Mean squared weight of the edges that stay, of 300: two samplers, by their standard errors."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=300)
    a, c = edge_kernel(weights)
    general = KDPP.of(np.outer(a, a) + np.diag(c))
    ours = [np.square(weights[th.dpp_edges(student(weights), 60, rng)[0]]).mean() for _ in range(60)]
    theirs = [np.square(weights[general.sample(60, rng)]).mean() for _ in range(60)]
    gap = np.mean(ours) - np.mean(theirs)
    assert abs(gap) < stats.norm.isf(FALSE_ALARM / 2) * np.sqrt((np.var(ours) + np.var(theirs)) / 59)
    assert np.mean(ours) > 1.2 * np.square(weights).mean()


def test_a_large_beta_is_a_draw_by_lot_and_a_small_one_prefers_large_weights():
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(40, 200))
    masks = {b: th.dpp_edges(student(weights), 2_000, rng, b, 0.0) for b in (1e6, 1.0, 1e-3)}
    kept = {b: np.square(weights[mask]).mean() for b, mask in masks.items()}
    largest = np.square(weights[th.magnitude_edges(student(weights), 2_000)]).mean()
    assert abs(kept[1e6] - np.square(weights).mean()) < 0.1
    assert kept[1e6] < kept[1.0] < kept[1e-3] < largest


def test_units_keep_equally_many_up_to_one():
    weights = np.random.default_rng(2).normal(size=(6, 50))
    counts = th.dpp_edges(student(weights), 100, np.random.default_rng(3)).sum(1)
    assert counts.sum() == 100 and set(counts.tolist()) == {16, 17}


@pytest.mark.parametrize(
    ("edges", "given", "message"),
    [
        (0, {}, "Cannot keep 0 of 6 edges"),
        (7, {}, "Cannot keep 7 of 6 edges"),
        (3, {"beta": 0.0}, r"beta=0\.0: a positive number, or 'median'"),
        (3, {"beta": "rows"}, "beta='rows'"),
        (3, {"jitter": -1.0}, r"jitter=-1\.0"),
    ],
)
def test_what_is_out_of_range_is_said(edges, given, message):
    with pytest.raises(TheoryError, match=message):
        th.dpp_edges(student(WEIGHTS), edges, np.random.default_rng(0), **given)


def test_sets_without_probability_are_refused():
    with pytest.raises(TheoryError, match="No set of 3 of these 6 edges has any probability: give jitter="):
        th.dpp_edges(student(np.zeros(6)), 3, np.random.default_rng(0), beta=1.0, jitter=0.0)
