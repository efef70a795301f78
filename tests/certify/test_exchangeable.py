"""Exchangeability: exact p-values, false alarms as declared, and what is seen of a change."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats

import bayesprune as bp
from bayesprune.certify.losses import OwnLoss
from bayesprune.certify.monitor import Martingale, exchangeable, permutation_test, scores_of
from bayesprune.certify.monitor.kept import write_state
from bayesprune.certify.monitor.martingale import BETS, FORMAT, JUMP, densities
from bayesprune.errors import CertificateError

FALSE_ALARM = 1e-4


def test_of_zeros_and_ones_it_is_the_hypergeometric_tail():
    """Fisher's exact test, by 20,000 permutations: each count within 4.5 standard errors."""
    before, now = np.zeros(60), np.zeros(40)
    before[:3], now[:7] = 1, 1
    exact = stats.hypergeom.sf(6, 100, 10, 40)
    found = permutation_test(before, now, statistic="higher", permutations=20_000)
    assert abs(found.p_value - exact) < 4.5 * (exact * (1 - exact) / 20_000) ** 0.5
    assert found.statistic == pytest.approx(7 / 40 - 3 / 60) and (found.before, found.now) == (60, 40)
    lower = permutation_test(now, before, statistic="lower", permutations=20_000)
    assert abs(lower.p_value - exact) < 4.5 * (exact * (1 - exact) / 20_000) ** 0.5


def test_the_distance_is_that_of_kolmogorov_and_smirnov_with_and_without_ties():
    generator = np.random.default_rng(0)
    for round_to in (12, 1):
        first, second = generator.random(70).round(round_to), (generator.random(50) ** 1.3).round(round_to)
        found = permutation_test(first, second, permutations=4000)
        assert found.statistic == pytest.approx(stats.ks_2samp(first, second).statistic, abs=1e-12)
        if round_to == 12:
            exact = stats.ks_2samp(first, second, method="exact").pvalue
            assert abs(found.p_value - exact) < 4.5 * (exact * (1 - exact) / 4000) ** 0.5 + 1 / 4001


@pytest.mark.parametrize("statistic", ["higher", "lower", "distance", lambda a, b: b.max() - a.max()])
def test_its_rank_is_uniform_over_all_orders_of_six_scores(statistic):
    """All 15 ways in which two of six scores may be today's are equally likely: P(p ≤ u) ≤ u, within the
    error of 300 permutations each."""
    scores = np.array([0.1, 0.2, 0.2, 0.5, 0.7, 0.9])
    p = []
    for today in combinations(range(6), 2):
        mark = np.isin(np.arange(6), today)
        p.append(permutation_test(scores[~mark], scores[mark], statistic=statistic, permutations=300).p_value)
    for u in np.arange(1, 15) / 15:
        assert np.mean(np.array(p) <= u - 0.06) <= u


@pytest.mark.parametrize("statistic", ["higher", "distance"])
@pytest.mark.parametrize("kind", ["0/1", "graded"])
def test_false_alarms_are_as_rare_as_declared(statistic, kind):
    """1,500 pairs of samples of one source, false alarm 1e-4."""
    generator, low = np.random.default_rng(1), 0
    for trial in range(1500):
        both = generator.random(90) if kind == "graded" else (generator.random(90) < 0.2).astype(float)
        test = permutation_test(both[:60], both[60:], statistic=statistic, permutations=19, seed=trial)
        low += test.p_value <= 0.1
    assert stats.binom.sf(low - 1, 1500, 0.1) > FALSE_ALARM, low / 1500
    if kind == "graded":
        assert stats.binom.cdf(low, 1500, 0.1) > FALSE_ALARM  # exact: no ties, and 2 of 20 ranks


def test_a_p_value_without_the_observed_order_would_be_found():
    """Counting the permutations alone: P(p ≤ 0) is 1 / (1 + B), and not 0."""
    generator, zero = np.random.default_rng(2), 0
    for trial in range(1500):
        both = generator.random(90)
        test = permutation_test(both[:60], both[60:], statistic="higher", permutations=19, seed=trial)
        zero += round(test.p_value * 20 - 1) == 0
    assert stats.binom.sf(zero - 1, 1500, 1e-3) < FALSE_ALARM


def test_a_network_tells_today_from_the_calibration(network, digits):
    (_, _), (x, y) = digits
    same = exchangeable(network, (x[:500], y[:500]), (x[500:], y[500:]))
    noise = torch.randn(x[500:].shape, generator=torch.Generator().manual_seed(0))
    other = exchangeable(network, x[:500], x[500:] + 0.5 * noise)
    assert same.p_value > 0.01 and other.p_value == 0.001
    assert "0 of 999 permutations" in str(other)
    worse = exchangeable(network, (x[:500], y[:500]), (x[500:], y[500:].roll(1)), score="error")
    assert worse.p_value == 0.001
    assert scores_of(network, (x, y), "error").mean() == (network(x).argmax(1) != y).double().mean()
    assert scores_of(network, x).min() > 0.1 and len(scores_of(network, x)) == len(x)
    again = scores_of(network, x, "disagreement", reference=network)
    assert not again.any()


def test_mistakes_of_a_test_are_told(network, digits):
    (_, _), (x, y) = digits
    for wrong, message in [
        (lambda: permutation_test([], [1.0]), r"before= is of shape \(0,\)"),
        (lambda: permutation_test([1.0], [float("nan")]), "now= is of shape .* or not finite"),
        (lambda: permutation_test([[1.0]], [1.0]), "one finite score a row"),
        (lambda: permutation_test(["a"], [1.0]), "before= cannot be read as scores"),
        (lambda: permutation_test([1.0], [1.0], permutations=0), "permutations=0: give a whole number"),
        (lambda: permutation_test([1.0], [1.0], statistic="mean"), "statistic='mean': give 'higher'"),
        (lambda: permutation_test([1.0], [1.0], seed=-1), "seed"),
        (lambda: exchangeable(network, x, x, score="error"), "needs labels: give rows as"),
        (lambda: exchangeable(network, x, x, score="disagreement"), "compares with the network"),
        (lambda: exchangeable(network, (x, y + 50), (x, y), score="error"), "Loss 'error': the labels run"),
        (lambda: scores_of(bp_regression(), torch.randn(5, 3)), "Confidences: the outputs are of shape"),
    ]:
        with pytest.raises(CertificateError, match=message):
            wrong()


def bp_regression():
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Unflatten(1, (2, 4)))


def test_a_loss_of_ones_own_is_a_score(network, digits):
    x, y = digits[1]
    brier = OwnLoss(lambda o, t: (o.softmax(1)[torch.arange(len(t)), t] - 1) ** 2, "brier")
    found = scores_of(network, (x, y), brier)
    assert found.min() >= 0 and found.max() <= 1 and len(np.unique(found)) > 100
    assert bp.certify.monitor.scores_of is scores_of


# ---- the martingale


def test_every_bet_is_fair():
    """Midpoint sums over [0, 1], substituting p = u⁶ where a density grows; what is cut at 1e-12 is lost."""
    u = (np.arange(10_000) + 0.5) / 10_000
    weight, p = 6 * u**5, u**6
    low, high = (np.array([densities(x) for x in end]) * weight[:, None] for end in (p, 1 - p))
    fair = np.array([1.0, 1.0, 1.0, 1.0, 1 - 0.8 * 1e-12**0.2, 1.0, 1 - 0.8 * 1e-12**0.2])
    assert low.mean(0)[[0, 1, 2, 5, 6]] == pytest.approx(fair[[0, 1, 2, 5, 6]], abs=2e-4)
    assert high.mean(0)[[3, 4]] == pytest.approx(fair[[3, 4]], abs=2e-4)
    assert len(BETS) == len(densities(0.3)) == 7 and np.isfinite([densities(0.0), densities(1.0)]).all()


def test_it_is_its_loop():
    generator = np.random.default_rng(3)
    first, stream = generator.random(20).round(1), generator.random(15).round(1)  # with ties
    capital, bag, highest = np.full(7, 1 / 7), first.tolist(), 1.0
    for score in stream:
        bag.append(float(score))
        n = len(bag)
        chance = np.random.default_rng((5, n)).random()
        p = (sum(s > score for s in bag) + chance * sum(s == score for s in bag)) / n
        capital = (capital * (1 - JUMP) + JUMP * capital.sum() / 7) * densities(p)
        highest = max(highest, capital.sum())
    found = Martingale.of(first, seed=5).observe(stream)
    assert np.exp(found.log_capital) == pytest.approx(capital, rel=1e-9)
    assert found.value == pytest.approx(capital.sum()) and found.p_value == pytest.approx(1 / highest)
    assert found.rows == 15 and list(found.scores) == sorted(bag)


@pytest.mark.parametrize("kind", ["0/1", "graded"])
def test_it_cries_without_need_as_rarely_as_declared(kind):
    """400 streams of 150 rows, delta 20 %, false alarm 1e-4; ranks with ties are uniform too."""
    generator, false = np.random.default_rng(4), 0
    for trial in range(400):
        both = generator.random(200) if kind == "graded" else (generator.random(200) < 0.2).astype(float)
        false += Martingale.of(both[:50], 0.2, trial).observe(both[50:]).found_at is not None
    assert stats.binom.sf(false - 1, 400, 0.2) > FALSE_ALARM, false / 400


@pytest.mark.parametrize("change", ["higher", "lower", "wider"])
def test_it_sees_a_change_whatever_its_direction(change):
    generator = np.random.default_rng(5)
    first = generator.normal(size=300)
    moved = {"higher": lambda x: x + 1, "lower": lambda x: x - 1, "wider": lambda x: 3 * x}[change]
    start = Martingale.of(first).observe(generator.normal(size=100))
    assert start.found_at is None
    found = start.observe(moved(generator.normal(size=200)))
    assert found.found_at is not None and 100 < found.found_at < 250


def test_it_goes_on_where_it_was_kept(tmp_path):
    generator = np.random.default_rng(6)
    first, stream = generator.random(50), generator.random(80) ** 0.3
    whole = Martingale.of(first).observe(stream)
    half = Martingale.of(first).observe(stream[:33])
    half.write(tmp_path / "a.json")
    assert Martingale.read(tmp_path / "a.json") == half
    assert Martingale.read(tmp_path / "a.json").observe(stream[33:]) == whole
    assert whole.found_at is not None
    values = dict(half.__dict__)
    for change, message in [
        ({"calibration": 500}, "scores or bets are not those of a stream"),
        ({"log_capital": [0.0]}, "scores or bets are not those of a stream"),
        ({"scores": list(half.scores)[::-1]}, "scores or bets are not those of a stream"),
        ({"delta": 2}, "delta is 2"),
        ({"highest": -1.0}, "highest is"),
    ]:
        write_state(tmp_path / "b.json", FORMAT, {**values, **change})
        with pytest.raises(CertificateError, match=message):
            Martingale.read(tmp_path / "b.json")
    for wrong in (0.0, 1.0, True, "a"):
        with pytest.raises(CertificateError, match=r"delta=.* must lie between 0 and 1"):
            Martingale.of(first, wrong)
