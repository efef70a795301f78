"""Thresholds that answers are held against: how often each is passed wrongly, planted both ways.

Rates are declared with each test; seeds are fixed.
"""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import binom, rankdata
from scipy.stats import norm as normal
from torch import nn

import bayesprune as bp
from bayesprune.posterior.arviz import effective_draws, pareto_k, rank_rhat, values_in_tail
from bayesprune.posterior.diagnose.confidence import against_chance, chance_errors
from bayesprune.posterior.diagnose.faithful import tail_limit
from bayesprune.posterior.diagnose.reproducible import spread

TRIALS = 200


def predictions(rows, seed, sharpness=1.0):
    """Ten classes: probabilities, sharpened by a factor on their logits; labels drawn from the plain ones."""
    generator = np.random.default_rng(seed)
    logits = 1.5 * generator.normal(size=(rows, 10))
    plain = softmax(logits, -1)
    labels = (plain.cumsum(-1) < generator.random((rows, 1))).sum(-1)
    return softmax(sharpness * logits, -1), labels


@pytest.mark.parametrize("rows", [50, 200, 360])
def test_a_calibrated_predictor_is_called_miscalibrated_once_in_a_hundred(rows):
    """At a rate of 1 %: more than 8 of 200 have a probability of 2e-4. Held against 0.05 nearly all were."""
    found = [against_chance(*predictions(rows, seed)) for seed in range(TRIALS)]
    alarms = sum(not one.holds for one in found)
    assert binom.sf(8, TRIALS, 0.01) < 3e-4 and alarms <= 8
    assert sum(one.error > 0.05 for one in found) > 0.4 * TRIALS  # what a fixed threshold made of them
    assert np.mean([one.error for one in found]) == pytest.approx(
        np.mean([one.mean for one in found]), rel=0.1
    )


@pytest.mark.parametrize("sharpness, rows, power", [(2.0, 200, 0.95), (2.0, 50, 0.5), (0.4, 200, 0.9)])
def test_planted_miscalibration_is_found(sharpness, rows, power):
    """Logits doubled, or shrunk to 0.4: found in this share of 200 cases at least."""
    found = [against_chance(*predictions(rows, seed, sharpness)) for seed in range(TRIALS)]
    assert sum(not one.holds for one in found) >= power * TRIALS


def test_the_limit_is_a_quantile_and_many_rows_are_not_held_to_nothing():
    """Of 50 rows at confidence 0.5, in one bin, the error is |Bin(50, 1/2) - 25| / 50."""
    probs, error = np.full((50, 2), 0.5), np.abs(np.arange(51) - 25) / 50
    drawn = chance_errors(probs.max(-1), 20_000)
    for value in (0.0, 0.1, 0.2):
        share = binom.pmf(np.arange(51), 50, 0.5)[error >= value - 1e-9].sum()
        assert (drawn >= value - 1e-9).mean() == pytest.approx(share, abs=0.015)  # four standard errors
    assert against_chance(probs, np.zeros(50)).limit == pytest.approx(0.18, abs=0.021)
    rows = 40_000
    right = np.arange(rows) < 0.915 * rows  # at a confidence of 0.9: beyond chance, and small
    found = against_chance(np.full((rows, 2), [0.9, 0.1]), (~right).astype(int))
    assert found.error == pytest.approx(0.015) and found.limit < 0.01 and found.holds
    assert "taken as small" in found.threshold and "40,000 rows" in found.threshold
    worse = against_chance(np.full((rows, 2), [0.9, 0.1]), (np.arange(rows) >= 0.95 * rows).astype(int))
    assert not worse.holds


def classifier(temperature, rows=360):
    """A network that is right about its rows at temperature 1, and too sure of them below."""
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(4, 3)), torch.randn(rows, 4)
    network[0].weight.data *= 4
    y = torch.distributions.Categorical(logits=network(x).detach()).sample()
    network[0].weight.data /= temperature
    prior = bp.priors.BernoulliGates(bp.priors.Fixed(0.5))
    gated = bp.gate(network, x[:1], prior=prior, likelihood=bp.Categorical(rows=rows))
    gated.log_odds.data.fill_(12.0)
    return gated, (x, y)


@pytest.mark.parametrize("fits", [1, 4])
@pytest.mark.parametrize("right", [True, False])
def test_the_answer_names_error_quantile_and_rows(right, fits):
    gated, rows = classifier(1.0 if right else 0.3)
    answer = bp.diagnose([gated] * fits, rows=rows, draws=20).faithful
    (measure,) = (m for m in answer.measures if m.name == "expected calibration error")
    level = {1: "99%", 4: "99.75%"}[fits]  # one in a hundred, over all fits
    assert measure.holds is right
    assert f"the {level} quantile of a calibrated predictor on 360 rows" in measure.threshold
    assert 0 < answer["the same of a calibrated predictor"] < 0.08
    if not right:
        assert "expected calibration error is" in answer.why and "quantile" in answer.why


# ---- R-hat


def rank_rhat_by_definition(values):
    """Vehtari et al. (2021), equations 3, 4 and 14, from the paper's text."""

    def plain(z):
        half = z.shape[1] // 2
        parts = np.concatenate([z[:, :half], z[:, -half:]])
        within, between = parts.var(axis=1, ddof=1).mean(), half * parts.mean(axis=1).var(ddof=1)
        return np.sqrt(((half - 1) / half * within + between / half) / within)

    def scores(v):
        return normal.ppf((rankdata(v).reshape(v.shape) - 3 / 8) / (v.size + 1 / 4))

    return max(plain(scores(values)), plain(scores(np.abs(values - np.median(values)))))


def chains(name, generator, draws=1000):
    values = generator.normal(size=(4, draws))
    return {
        "equal": values,
        "one five times as wide": values * np.array([[1.0], [1], [1], [5]]),
        "Cauchy, one shifted": generator.standard_cauchy((4, draws)) + np.array([[0.0], [0], [0], [3]]),
        "shifted by 0.3 each": values + np.array([[0.0], [0.3], [0.6], [0.9]]),
    }[name]


@pytest.mark.parametrize("name", ["one five times as wide", "Cauchy, one shifted", "shifted by 0.3 each"])
@pytest.mark.parametrize("draws", [200, 1000])
def test_chains_that_differ_are_above_the_threshold(name, draws):
    generator = np.random.default_rng(0)
    for _ in range(20):
        values = chains(name, generator, draws)
        assert rank_rhat(values) > 1.01
        assert rank_rhat(values) == pytest.approx(rank_rhat_by_definition(values), rel=1e-9)


@pytest.mark.parametrize("draws, most", [(200, 8), (1000, 0)])
def test_equal_chains_are_below_it(draws, most):
    """At 200 draws 1 % are above: more than 8 of 200 have a probability of 2e-4. At 1,000, none."""
    generator = np.random.default_rng(1)
    found = [rank_rhat(chains("equal", generator, draws)) > 1.01 for _ in range(TRIALS)]
    assert sum(found) <= most


def test_chains_without_spread():
    assert rank_rhat(np.full((4, 10), 3)) == 1.0
    assert rank_rhat(np.array([[1] * 8, [2] * 8])) == np.inf
    assert np.isnan(rank_rhat(np.ones((4, 3))))


def test_effective_draws_are_told_apart_in_bulk_and_tails():
    values = chains("one five times as wide", np.random.default_rng(0))
    bulk, tail = effective_draws(values)
    assert bulk > 2000 and tail < 100  # the tails are those of one chain alone
    assert min(effective_draws(chains("equal", np.random.default_rng(0)))) > 3000


def undecided(log_odds):
    """A model of forty inputs, all as probable."""
    torch.manual_seed(0)
    prior = bp.priors.BernoulliGates(bp.priors.Fixed(0.5))
    gated = bp.gate(
        nn.Sequential(nn.Linear(40, 1)), torch.zeros(1, 40), prior=prior, likelihood=bp.Gaussian(rows=50)
    )
    gated.log_odds.data.copy_(torch.as_tensor(log_odds, dtype=torch.float).expand(40))
    return gated


def test_fits_that_are_equally_large_and_unequally_sure_are_not_reproducible():
    """All keep 20 of 40 units in the mean: three to within 1 unit, one to within 3. Plain R-hat is 1."""
    sure = torch.where(torch.arange(40) < 20, 4.0, -4.0)
    answer = bp.diagnose([undecided(sure)] * 3 + [undecided(0.0)], draws=1000).reproducible
    assert answer.verdict == "no" and answer["R-hat of units kept in input"] > 1.01, answer
    assert answer["smallest tail ESS"] < 400 < answer["smallest bulk ESS"]
    few = bp.diagnose([undecided(0.0)] * 4, draws=100).reproducible
    assert "R-hat asks for 200 draws" in few.measures[0].threshold
    assert not any("ESS" in measure.name for measure in few.measures)
    many = bp.diagnose([undecided(0.0)] * 4, draws=1000).reproducible
    assert many.measures[0].holds and many.measures[0].value < 1.01


def test_of_four_masks_no_more_is_said_than_four_numbers_can_tell():
    """The interval of a standard deviation, against 20,000 samples of four: 95 % to within 1 %."""
    sizes = [torch.where(torch.arange(40) < kept, 12.0, -12.0) for kept in (20, 20, 21, 21)]
    answer = bp.diagnose([undecided(odds) for odds in sizes], draws=200).reproducible
    assert answer.verdict == "yes" and "a factor of 0.57 to 3.7" in answer.why, answer
    deviations = np.random.default_rng(0).normal(size=(20_000, 4)).std(1, ddof=1)
    inside = (0.5665 * deviations < 1) & (3.7286 * deviations > 1)
    assert inside.mean() == pytest.approx(0.95, abs=0.01)


def test_spread_looks_at_the_ends_too():
    values = np.tile(np.arange(400) % 5, (4, 1)) + 10
    assert spread(values) == (0.0, 0.0)
    values[3] = 12 + 3 * (values[3] - 12)  # the same mean and median, thrice as wide
    assert spread(values) == (4.0, pytest.approx(4 / 12))
    assert spread(values[:, :150])[0] == 0.0  # too few draws for quantiles


# ---- k-hat


@pytest.mark.parametrize(
    "draws, limit", [(50, 0.4114), (200, 0.5654), (1000, 0.6667), (2200, 0.7), (10**6, 0.7)]
)
def test_the_limit_of_k_follows_the_number_of_draws(draws, limit):
    assert tail_limit(draws, draws) == pytest.approx(limit, abs=5e-4)


@pytest.mark.parametrize("draws", [100, 1000, 4000])
def test_a_tail_of_few_values_is_worth_as_many_draws_as_have_such_a_tail(draws):
    generator = np.random.default_rng(0)
    values = values_in_tail(generator.normal(size=draws))
    assert values == int(np.ceil(min(draws / 5, 3 * draws**0.5)))
    assert tail_limit(10**6, values) == pytest.approx(tail_limit(draws, values), abs=5e-3)
    assert tail_limit(10**6, 1) < tail_limit(10**6, 5) == pytest.approx(1 - 1 / np.log10(25))


def test_weights_that_are_trusted_at_many_draws_are_not_at_few():
    """A tail of shape 0.55: trusted at 1,000 draws of continuous weights, not where they take 12 values."""
    assert tail_limit(1000, 95) > 0.55 > tail_limit(1000, 12)
    weights = np.log(np.random.default_rng(0).pareto(2, size=100_000) + 1)
    assert pareto_k(weights) == pytest.approx(0.5, abs=0.05)
