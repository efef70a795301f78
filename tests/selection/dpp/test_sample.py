"""The k-DPP: draws have the enumerated probabilities, polynomials neither cancel nor overflow, bad "
"kernels are named."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from scipy import stats

from bayesprune.errors import SelectionError
from bayesprune.selection import KDPP, sample_kdpp
from bayesprune.selection.dpp.sample import log_polynomials, sample_projection

FALSE_ALARM = 1e-4
"""Probability with which one of the χ² tests fails although the sampler is right; seeds are fixed."""


def gaussian_kernel(units: int, dims: int, seed: int, scale: float = 1.0) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(units, dims))
    return scale * np.exp(-0.5 * ((points[:, None] - points) ** 2).sum(-1))


def enumerated(kernel: np.ndarray, k: int) -> dict[tuple[int, ...], float]:
    dets = {s: np.linalg.det(kernel[np.ix_(s, s)]) for s in combinations(range(len(kernel)), k)}
    total = sum(dets.values())
    return {subset: det / total for subset, det in dets.items()}


def p_value(counts: dict[tuple[int, ...], int], probs: dict[tuple[int, ...], float], draws: int) -> float:
    """Of χ², cells of less than five expected draws taken together."""
    expected = np.array([probs[s] * draws for s in probs])
    seen = np.array([counts.get(s, 0) for s in probs], dtype=float)
    small = expected < 5
    if small.any():
        expected, seen = (np.append(a[~small], a[small].sum()) for a in (expected, seen))
    return float(stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue)


@pytest.mark.parametrize(
    ("kernel", "k"),
    [
        (gaussian_kernel(6, 2, 0), 2),
        (gaussian_kernel(7, 2, 1), 3),
        (gaussian_kernel(6, 1, 2), 5),
        (gaussian_kernel(6, 2, 3, scale=1e150), 3),
        (np.diag([0.1, 1.0, 5.0, 2.0, 0.5]), 2),
        (gaussian_kernel(5, 2, 4)[:, :3] @ gaussian_kernel(5, 2, 4)[:3], 3),
    ],
    ids=["pairs", "triples", "all but one", "huge", "diagonal", "rank 3"],
)
def test_draws_have_the_enumerated_probabilities(kernel, k):
    kernel = (kernel + kernel.T) / 2
    probs = enumerated(kernel / np.abs(kernel).max(), k)
    sampler, generator, draws = KDPP.of(kernel), np.random.default_rng(7), 8_000
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(draws):
        subset = tuple(sampler.sample(k, generator).tolist())
        counts[subset] = counts.get(subset, 0) + 1
    assert set(counts) <= set(probs)
    assert p_value(counts, probs, draws) > FALSE_ALARM


def test_the_chi_square_test_can_fail():
    """Uniform subsets in place of a k-DPP's are found out."""
    probs, generator, draws = enumerated(gaussian_kernel(6, 2, 0), 2), np.random.default_rng(0), 8_000
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(draws):
        subset = tuple(sorted(generator.choice(6, 2, replace=False).tolist()))
        counts[subset] = counts.get(subset, 0) + 1
    assert p_value(counts, probs, draws) < FALSE_ALARM


def test_a_projection_dpp_has_the_enumerated_probabilities():
    basis = np.linalg.qr(np.random.default_rng(3).normal(size=(6, 3)))[0]
    probs = enumerated(basis @ basis.T, 3)
    generator, draws, counts = np.random.default_rng(5), 8_000, {}
    for _ in range(draws):
        subset = tuple(sorted(sample_projection(basis, generator).tolist()))
        counts[subset] = counts.get(subset, 0) + 1
    assert p_value(counts, probs, draws) > FALSE_ALARM


def test_polynomials_are_sums_of_products():
    values = np.random.default_rng(0).gamma(1.0, size=8)
    table = log_polynomials(values, 5)
    for j in range(6):
        for m in range(9):
            exact = sum(np.prod(c) for c in combinations(values[:m], j))
            assert np.exp(table[j, m]) == pytest.approx(exact, rel=1e-12)


def test_polynomials_of_equal_eigenvalues_are_binomial_at_any_scale():
    for scale in (1e-200, 1.0, 1e200):
        table = log_polynomials(np.full(500, scale), 50)
        assert table[50, 500] == pytest.approx(np.log(float(comb(500, 50))) + 50 * np.log(scale), rel=1e-12)


@pytest.mark.parametrize("k", [0, 1, 49, 50])
def test_a_draw_has_k_different_units(k):
    chosen = sample_kdpp(gaussian_kernel(50, 10, 0), k, seed=1)
    assert len(set(chosen.tolist())) == k and (np.diff(chosen) > 0).all()


def test_a_seed_gives_the_same_draw():
    kernel = gaussian_kernel(40, 5, 0)
    assert np.array_equal(sample_kdpp(kernel, 10, seed=3), sample_kdpp(kernel, 10, seed=3))
    assert not np.array_equal(sample_kdpp(kernel, 10, seed=3), sample_kdpp(kernel, 10, seed=4))


def test_copies_are_not_drawn_together_unless_jitter_lets_them_in():
    kernel = np.ones((3, 3))
    kernel[2, :2] = kernel[:2, 2] = 0.2
    for seed in range(200):
        assert 2 in sample_kdpp(kernel, 2, seed)
    with pytest.raises(SelectionError, match=r"k=3 is more than the rank 2 .* over 3 units.*jitter=1e-6"):
        sample_kdpp(kernel, 3)
    assert sample_kdpp(kernel, 3, jitter=1e-6).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("kernel", "k", "message"),
    [
        (np.eye(4), 5, "k=5 of 4 units"),
        (np.eye(4), -1, "k=-1 of 4 units"),
        (np.full((2, 2), np.nan), 1, "not finite"),
        (np.ones((2, 3)), 1, "square matrix"),
        (np.array([[1.0, 0.5], [0.0, 1.0]]), 1, "not symmetric"),
        (np.diag([1.0, -1.0]), 1, "positive semi-definite"),
    ],
)
def test_bad_input_is_named(kernel, k, message):
    with pytest.raises(SelectionError, match=message):
        sample_kdpp(kernel, k)


def test_a_negative_jitter_is_refused():
    with pytest.raises(SelectionError, match=r"jitter=-1\.0"):
        sample_kdpp(np.eye(2), 1, jitter=-1.0)
