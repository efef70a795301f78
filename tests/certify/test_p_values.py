"""p-values: against brute force, their validity by exact enumeration and by simulation, and turned round."""

from itertools import product
from math import comb, log

import numpy as np
import pytest
from scipy import stats

from bayesprune.certify.pvalues import (
    Betting,
    Binomial,
    HoeffdingBentkus,
    p_value_from,
    rows_needed,
    upper_bound,
)  # fmt: skip
from bayesprune.errors import CertificateError

ALL = [Binomial(), HoeffdingBentkus(), Betting(), Betting(delta=0.01, seed=3)]
FALSE_ALARM = 1e-4  # of each randomised test


def test_the_binomial_is_the_sum_of_its_terms():
    losses = np.zeros((6, 40))
    for errors in range(6):
        losses[errors, :errors] = 1
    found = Binomial()(losses, 0.2)
    brute = [sum(comb(40, k) * 0.2**k * 0.8 ** (40 - k) for k in range(errors + 1)) for errors in range(6)]
    assert found == pytest.approx(brute, rel=1e-12)


def test_hoeffding_bentkus_is_its_formula():
    losses = np.random.default_rng(0).uniform(0, 0.1, size=200)
    mean, alpha, n = losses.mean(), 0.08, 200
    h1 = mean * log(mean / alpha) + (1 - mean) * log((1 - mean) / (1 - alpha))
    bentkus = np.e * stats.binom.cdf(np.ceil(losses.sum()), n, alpha)
    assert HoeffdingBentkus()(losses, alpha) == pytest.approx(min(np.exp(-n * h1), bentkus, 1.0))


def test_betting_is_its_loop():
    generator = np.random.default_rng(1)
    losses, alpha, delta, n = generator.beta(1, 20, size=150), 0.09, 0.1, 150
    shuffled = losses[np.random.default_rng(7).permutation(n)]
    capital, best, total, squares, variance = 1.0, 1.0, 0.0, 0.0, 0.25
    for i, loss in enumerate(shuffled, start=1):
        stake = min(0.75 / (1 - alpha), np.sqrt(2 * log(1 / delta) / (n * variance)))
        capital *= 1 - stake * (loss - alpha)
        best = max(best, capital)
        total += loss
        squares += (loss - (0.5 + total) / (1 + i)) ** 2
        variance = (0.25 + squares) / (1 + i)
    assert Betting(delta=delta, seed=7)(losses, alpha) == pytest.approx(1 / best, rel=1e-10)
    assert 1 / best < 0.5


@pytest.mark.parametrize("p_value", ALL, ids=str)
@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.7])
def test_validity_is_exact_on_all_outcomes_of_ten_rows(p_value, alpha):
    """P(p ≤ u) ≤ u at the edge of the hypothesis, over all 1,024 outcomes: no simulation."""
    outcomes = np.array(list(product([0.0, 1.0], repeat=10)))
    chance = (alpha**outcomes * (1 - alpha) ** (1 - outcomes)).prod(-1)
    p = p_value(outcomes, alpha)
    for u in np.unique(p):
        assert chance[p <= u].sum() <= u * (1 + 1e-9)


@pytest.mark.parametrize("p_value", ALL[1:], ids=str)
@pytest.mark.parametrize("draw", ["beta", "three values", "uniform"])
def test_validity_of_bounded_losses(p_value, draw):
    """Risk exactly alpha, 4,000 calibrations of 300 rows: P(p ≤ 0.05) ≤ 0.05, false alarm 1e-4."""
    generator, size = np.random.default_rng(2), (4000, 300)
    losses = {
        "beta": lambda: generator.beta(0.5, 4.5, size),  # mean 0.1
        "three values": lambda: generator.choice([0, 0.5, 1], size, p=[0.01, 0.97, 0.02]),  # mean 0.505
        "uniform": lambda: generator.uniform(0, 0.2, size),
    }[draw]()
    alpha = {"beta": 0.1, "three values": 0.505, "uniform": 0.1}[draw]
    violations = int((p_value(losses, alpha) <= 0.05).sum())
    assert stats.binom.sf(violations - 1, 4000, 0.05) > FALSE_ALARM, violations


def test_a_wrong_p_value_would_be_found():
    """The naive normal approximation at few errors: the validity test has the power to notice."""
    losses = (np.random.default_rng(3).random((4000, 300)) < 0.005).astype(float)
    mean, deviation = losses.mean(-1), losses.std(-1)
    naive = stats.norm.cdf((mean - 0.005) / np.maximum(deviation, 1e-9) * 300**0.5)
    violations = int((naive <= 0.05).sum())
    assert stats.binom.sf(violations - 1, 4000, 0.05) < FALSE_ALARM


@pytest.mark.parametrize("p_value", ALL, ids=str)
def test_p_values_fall_with_alpha_and_rise_with_the_losses(p_value):
    losses = np.zeros(400)
    losses[::40] = 1
    values = [float(p_value(losses, alpha)) for alpha in np.linspace(0.01, 0.2, 30)]
    assert values == sorted(values, reverse=True) and values[0] > 0.4 > 0.01 > values[-1]
    assert p_value(np.ones(400), 0.1) == pytest.approx(1.0)
    assert p_value(np.zeros((3, 0)), 0.1).tolist() == [1.0] * 3


@pytest.mark.parametrize("alpha, delta", [(0.02, 0.05), (0.1, 0.01), (0.5, 0.3)])
def test_rows_needed_is_the_closed_form(alpha, delta):
    closed = int(np.ceil(log(delta) / log(1 - alpha)))
    assert rows_needed(Binomial(), alpha, delta) == rows_needed(HoeffdingBentkus(), alpha, delta) == closed
    assert rows_needed(Betting(delta), alpha, delta) >= closed


def test_the_binomial_bound_is_clopper_pearson_and_tighter_than_hoeffding_bentkus():
    losses = np.zeros(5000)
    losses[:50] = 1
    exact = stats.beta.ppf(0.95, 51, 4950)
    assert upper_bound(Binomial(), losses, 0.05) == pytest.approx(exact, abs=2e-6)
    assert upper_bound(HoeffdingBentkus(), losses, 0.05) == pytest.approx(0.01338, abs=1e-5)
    low = np.random.default_rng(0).uniform(0, 0.1, size=2000)
    bounds = [upper_bound(p, low, 0.05) for p in (Betting(), HoeffdingBentkus())]
    assert 0.05 < bounds[0] < 0.0525 < 0.058 < bounds[1]


def test_names_and_settings_come_back():
    for p_value in ALL:
        assert p_value_from(p_value.to_json(), delta=0.5) == p_value
    assert p_value_from("betting", delta=0.01) == Betting(0.01)
    for wrong in ("exact", {"name": "betting", "luck": 3}):
        with pytest.raises(CertificateError, match=r"exact.*binomial|luck"):
            p_value_from(wrong, 0.05)
