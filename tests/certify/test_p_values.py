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
from bayesprune.certify.pvalues.bounds import least_rows, lowest_level
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


@pytest.mark.parametrize(
    ("n", "mean", "alpha", "smaller"),
    [(200, 0.05, 0.08, "Bentkus"), (50, 0.0101, 0.2, "Hoeffding"), (50, 0.0301, 0.3, "Hoeffding")],
)
def test_hoeffding_bentkus_is_its_formula(n, mean, alpha, smaller):
    """Bentkus counts whole losses: 50 rows of 0.0101 are one for him."""
    losses = np.full(n, mean)
    h1 = mean * log(mean / alpha) + (1 - mean) * log((1 - mean) / (1 - alpha))
    whole = int(np.ceil(round(n * mean, 9)))
    bounds = {
        "Hoeffding": np.exp(-n * h1),
        "Bentkus": np.e * sum(comb(n, k) * alpha**k * (1 - alpha) ** (n - k) for k in range(whole + 1)),
    }
    assert min(bounds, key=bounds.get) == smaller
    assert HoeffdingBentkus()(losses, alpha) == pytest.approx(bounds[smaller], rel=1e-9)


def test_no_p_value_is_above_one_by_rounding():
    """Of a mean just under alpha the distance is zero but for rounding, on either side."""
    for alpha in np.random.default_rng(0).random(300):
        for p_value in (HoeffdingBentkus(), Betting()):
            assert p_value(np.full(1000, alpha * (1 - 1e-9)), alpha) <= 1.0


def test_of_one_row_the_binomial_knows_as_much_as_it_can():
    assert Binomial()(np.array([[0.0], [1.0]]), 0.2) == pytest.approx([0.8, 1.0], rel=1e-12)


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
    assert p_value(np.zeros((2, 3, 0)), 0.1).tolist() == [[1.0] * 3] * 2


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


@pytest.mark.parametrize("least", range(1, 41))
def test_the_least_number_of_rows_is_found_wherever_it_is(least):
    """A p-value of exactly delta rejects."""
    assert least_rows(lambda rows: 0.05 if rows >= least else 0.051, 0.05) == least


def test_more_rows_than_the_most_are_none():
    def steps_at(least):
        return lambda rows: 0.0 if rows >= least else 1.0

    assert least_rows(steps_at(8), 0.05, most=8) == 8
    assert least_rows(steps_at(9), 0.05, most=8) is None
    assert rows_needed(Binomial(), alpha=1e-9, delta=0.05) is None


def test_the_lowest_level_is_not_below_and_within_a_millionth():
    """A p-value of exactly delta rejects; where none does, the level is 1."""
    for exact in (0.5, 0.3, 0.999, 1e-7):
        level = lowest_level(lambda level, exact=exact: 0.05 if level >= exact else 0.051, 0.05)
        assert exact <= level < exact + 1e-6
    assert lowest_level(lambda level: 1.0, 0.05) == 1.0


def test_names_and_settings_come_back():
    for p_value in ALL:
        assert p_value_from(p_value.to_json(), delta=0.5) == p_value
        assert p_value_from(p_value, delta=0.5) is p_value
    assert p_value_from("betting", delta=0.01) == Betting(0.01)


def test_what_is_no_p_value_is_refused():
    none = "there is none of that name. Choose one of binomial, hoeffding-bentkus, betting."
    kinds = "give 'binomial', 'hoeffding-bentkus' or 'betting', or one of bayesprune.certify.pvalues."
    for wrong, message in [
        ("exact", f"p_value='exact': {none}"),
        ({"seed": 3}, f"p_value=None: {none}"),
        (0.05, f"p_value=0.05: {kinds}"),
    ]:
        with pytest.raises(CertificateError) as refused:
            p_value_from(wrong, 0.05)
        assert str(refused.value) == message


def test_settings_that_a_p_value_does_not_have_are_refused():
    with pytest.raises(CertificateError, match=r"^p-value 'betting': its settings cannot be used \(.*luck"):
        p_value_from({"name": "betting", "luck": 3}, 0.05)
