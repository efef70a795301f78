"""Each answer on a case where it must be no, and on one where it must not."""

import re
from dataclasses import replace

import arviz
import numpy as np
import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import PosteriorError
from bayesprune.posterior.arviz import pareto_k
from bayesprune.posterior.diagnose.confidence import brier, calibration_error
from bayesprune.posterior.diagnose.decided import entropy, undecided
from bayesprune.posterior.diagnose.matching import matched_jaccard, same_units
from bayesprune.posterior.diagnose.optimised import moved, rise
from bayesprune.posterior.diagnose.reproducible import jaccard
from bayesprune.posterior.diagnose.still import gain_of_steps, with_gain

ROWS = 60
X = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def gated_for(seed=0, price=1.0):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=price))
    return bp.gate(network, X[:1], prior=prior, likelihood=bp.Categorical(rows=ROWS))


def fitted(epochs, seed=0):
    recipe = bp.Recipe(
        gates=bp.GateSteps(learning_rate=0.5, momentum=0.5, clip=1.0, every=1), learning_rate=1e-2, decide=0.5
    )
    settings = {"batch_size": 10, "recipe": recipe, "seed": seed, "progress": False}
    return bp.fit(gated_for(seed), (X, Y), epochs=epochs, **settings)


def masked(kept, seed=0, odds=12.0):
    """A gated model that is certain to keep these units of (4 inputs, 6 hidden)."""
    gated = gated_for(seed)
    gated.log_odds.data = torch.where(
        torch.arange(10).unsqueeze(1).eq(torch.tensor(kept)).any(1), odds, -odds
    )
    return gated


@pytest.fixture(scope="module")
def long():
    return fitted(epochs=40)


@pytest.mark.filterwarnings("ignore::bayesprune.errors.EmptyGroupWarning")
def test_a_fit_of_one_epoch_is_not_optimised_and_a_long_one_is(long):
    answer = bp.diagnose(fitted(epochs=1), draws=20).optimised
    assert answer.verdict == "no" and "epochs is 1, not at least 5" in answer.why
    assert "more epochs" in answer.next
    answer = bp.diagnose(long, draws=20).optimised
    assert answer.verdict == "yes", answer
    few = replace(long, history=long.history[:6])  # stopped while the ELBO rises
    assert bp.diagnose(few, draws=20).optimised.verdict == "no"
    none = bp.diagnose(long.gated, draws=20).optimised
    assert none.verdict == "not asked" and "no history" in none.why


def line(learning_rate, seed, epochs=60):
    """A regression that a fit of the default rate learns, noise 1, and one at next to no rate does not."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 6, generator=generator)
    y = 3 * x[:, :1] - 2 * x[:, 1:2] + 2 * (2 * x[:, 2:3]).tanh()
    y = y + torch.randn(200, 1, generator=generator)
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=5.0))
    gated = bp.gate(network, x[:1], prior=prior, likelihood=bp.Gaussian(rows=200))
    recipe = bp.Recipe(learning_rate=learning_rate, moves=None)  # which put weights at their mode
    result = bp.fit(gated, (x, y), epochs=epochs, batch_size=20, recipe=recipe, seed=seed, progress=False)
    return result, (x, y)


@pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
@pytest.mark.parametrize("seed", range(3))
def test_a_learning_rate_of_nothing_is_not_optimised(seed, tmp_path):
    """All three of either kind are told right; over more seeds see the page of error rates."""
    result, rows = line(1e-5, seed)
    still = bp.diagnose(result, draws=20).optimised  # by its history alone
    assert still.verdict == "yes" and "could still gain was not asked" in still.why
    answer = bp.diagnose(result, rows=rows, draws=20).optimised
    assert answer.verdict == "no" and answer["gain of 20 steps"] > 0.05, answer
    assert "raise the learning rate" in answer.next and "falls further makes it worse" in answer.next
    draws = result.posterior().to_arviz(draws=20)
    bp.posterior.write(with_gain(draws, result.gated, rows), tmp_path / "posterior.nc")
    read = bp.posterior.read(tmp_path / "posterior.nc")
    alone = bp.diagnose(read).optimised  # what a run has left behind
    assert alone.verdict == "no" and alone["gain of 20 steps"] == pytest.approx(answer["gain of 20 steps"])
    both = bp.diagnose(bp.posterior.join([read, draws])).optimised  # of one of two it is not known
    assert both.verdict == "yes" and "could still gain was not asked" in both.why
    result, rows = line(None, seed)
    answer = bp.diagnose(result, rows=rows, draws=20).optimised
    assert answer.verdict == "yes" and answer["gain of 20 steps"] < 0.005, answer


def test_steps_gain_nothing_at_the_optimum_and_no_more_than_there_is_to_gain():
    """A linear regression with known noise, whose optimum and gap are in closed form."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 3, generator=generator).double()
    y = x @ torch.tensor([[1.0], [-1.0], [0.5]]).double()
    y = y + 0.05 * torch.randn(400, 1, generator=generator)
    network = nn.Sequential(nn.Linear(3, 1, bias=False)).double()
    prior = bp.priors.BernoulliGates(bp.priors.Fixed(0.5))
    likelihood = bp.Gaussian(rows=400, scale=1.0, learn_scale=False)
    gated = bp.gate(network, x[:1], prior=prior, likelihood=likelihood)
    gated.log_odds.data.fill_(12.0)
    scale = gated.weights.scale_of("0.weight")
    best = torch.linalg.solve(x.T @ x + torch.eye(3).double() / scale**2, x.T @ y).T
    weight = gated.weight_tensors()["0.weight"]
    before = weight.detach().clone()
    weight.data.copy_(best)
    assert gain_of_steps(gated, (x, y)) < 1e-4
    weight.data.copy_(best + 0.1)  # ten steps of 0.01 away
    gap = float((x @ torch.full((3, 1), 0.1).double()).square().mean() / 2)
    assert 0.85 * gap < gain_of_steps(gated, (x, y)) < 1.15 * gap  # of half of the rows
    assert not torch.equal(weight.data, before) and torch.equal(weight.data, best + 0.1)


def test_open_questions_are_not_decided_and_vertices_are(long):
    half = bp.diagnose(masked([0], odds=1.0), draws=20).decided
    assert half.verdict == "no" and half["gates between"] == 1.0
    assert half["entropy"] == pytest.approx(float(entropy(np.array([torch.tensor(1.0).sigmoid()]))), abs=1e-6)
    sure = bp.diagnose(long, draws=20).decided
    assert sure.verdict == "yes" and "no evidence that it is right" in sure.why


def test_fits_of_different_sizes_are_not_reproducible_and_equal_ones_are():
    small, large = [0, 4, 5], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    answer = bp.diagnose([masked(small), masked(large), masked(small), masked(large)], draws=20).reproducible
    assert answer.verdict == "no" and answer["R-hat of units kept in 0"] == np.inf
    assert "0 keeps 2 to 6 units" in answer.why and "expected MACs differ by" in answer.why
    answer = bp.diagnose([masked(small)] * 4, draws=20).reproducible
    assert answer.verdict == "yes" and answer["R-hat of units kept in 0"] == 1.0
    assert answer["Jaccard of inputs"] == 1.0


def test_fits_of_one_size_that_keep_other_inputs_are_told_so():
    answer = bp.diagnose([masked([i, 4, 5]) for i in range(4)], draws=20).reproducible
    assert answer.verdict == "no" and answer["Jaccard of inputs"] == 0.0
    assert "how many units they keep, and not in which" in answer.why


@pytest.mark.parametrize("fits", [1, 3])
def test_too_few_fits_are_not_asked(fits):
    answer = bp.diagnose([masked([0, 4])] * fits, draws=20).reproducible
    assert answer.verdict == "not asked" and answer.why == f"not asked: needs 4 fits, and has {fits}"


def test_hidden_units_are_matched_by_what_they_do():
    one, other = masked([0, 1, 2, 3, 4, 5, 6]), masked([0, 1, 2, 3, 7, 8, 9])
    layers = [gated.network.network[0] for gated in (one, other)]
    with torch.no_grad():  # the same three units, in other places and with other signs
        layers[1].weight[3:6] = -layers[0].weight[[2, 0, 1]]
        layers[1].bias[3:6] = -layers[0].bias[[2, 0, 1]]
    fits = bp.Posterior.of([one, other]).fits
    assert matched_jaccard(fits, X) == {"0": 1.0}
    raw = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]], bool)
    assert jaccard(raw) == 0.0
    with torch.no_grad():
        layers[1].weight[5] = 0.0
    assert matched_jaccard(fits, X) == {"0": 2 / 4}
    answer = bp.diagnose([one, other, one, other], rows=(X, Y), draws=20).reproducible
    assert 0.5 < answer["Jaccard of units kept in 0"] < 1


def test_fits_that_keep_everything_agree_in_what_they_keep():
    """Networks that were initialised otherwise do other things, and nothing of them was chosen."""
    whole = [masked(range(10), seed) for seed in range(4)]
    assert matched_jaccard(bp.Posterior.of(whole).fits, X)["0"] < 0.8
    answer = bp.diagnose(whole, rows=(X, Y), draws=20).reproducible
    assert answer.verdict == "not asked" and "nothing was pruned" in answer.why, answer
    assert "raise the price" in answer.next and not answer.measures
    one_less = [*whole[:3], masked(range(9), 3)]
    assert bp.diagnose(one_less, rows=(X, Y), draws=20).reproducible["Jaccard of units kept in 0"] < 0.8


def wide_and_sure():
    """A model that keeps all of its units, each of consequence, and rows whose targets follow from it."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    with torch.no_grad():
        nn.init.orthogonal_(network[0].weight, gain=2.0)
        network[2].weight.copy_(torch.tensor([[1.5, -1.5, 1.5, -1.5], [-1.5, 1.5, -1.5, 1.5]]))
    x = torch.randn(1500, 4)
    y = torch.distributions.Categorical(logits=network(x).detach()).sample()
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=3.0))
    gated = bp.gate(network, x[:1], prior=prior, likelihood=bp.Categorical(rows=1500))
    gated.log_odds.data.fill_(12.0)
    return gated, (x, y)


def test_a_model_that_is_right_about_its_rows_is_faithful():
    gated, rows = wide_and_sure()
    answer = bp.diagnose(gated, rows=rows, draws=50).faithful
    assert answer.verdict == "yes", answer
    assert answer["expected calibration error"] < 0.05 and answer["the same under the posterior"] > 0.99


def test_undecided_gates_whose_draws_predict_worse_than_the_mask_are_unfaithful():
    gated, rows = wide_and_sure()
    gated.log_odds.data.fill_(0.2)
    answer = bp.diagnose(gated, rows=rows, draws=50).faithful
    assert answer.verdict == "no" and answer["error_percent of sampled masks"] > 5
    assert "k̂" in answer.why and "certain but unfaithful" not in answer.why


def test_a_certain_mask_whose_units_are_not_worth_their_price_is_unfaithful():
    gated, rows = wide_and_sure()
    with torch.no_grad():
        gated.network.network[-1].weight[:, :2] = (
            0.0  # two hidden units do nothing, at 3 nats each: yet they are kept
        )
    answer = bp.diagnose(gated, rows=rows, draws=50).faithful
    assert answer.verdict == "no" and "certain but unfaithful" in answer.why
    assert answer["the same under the posterior"] < 0.1


def test_without_rows_faithful_is_not_asked(long):
    assert bp.diagnose(long, draws=20).faithful.why == "not asked: needs rows to predict"


def test_cores_give_the_figures_of_their_definitions():
    generator = np.random.default_rng(0)
    assert rise(np.arange(30.0)) == pytest.approx(2.0)
    assert moved(np.array([[0.1, 0.5], [0.1, 0.5], [0.2, 0.52]])) == 0.5
    assert entropy(np.array([0.5, 1.0])) == pytest.approx(np.log(2) / 2)
    assert undecided(np.array([0.04, 0.06, 0.94, 0.96])) == 0.5
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.35, 0.65]])
    labels = np.array([0, 0, 1, 0])
    assert calibration_error(probs, labels) == pytest.approx(0.5 * 0.1 + 0.5 * 0.15)
    assert brier(probs, labels) == pytest.approx((2 * 0.02 + 2 * 0.35**2 + 2 * 0.65**2) / 4)
    activations = generator.normal(size=(500, 3))
    assert same_units(activations, -activations[:, [2, 0]]) == 2
    assert same_units(activations, generator.normal(size=(500, 3))) == 0
    assert jaccard(np.zeros((2, 3), bool)) == 1.0
    assert np.isnan(pareto_k(np.ones(50))) and pareto_k(np.array([0.0, -np.inf] * 25)) == np.inf
    assert pareto_k(generator.normal(size=1000)) < 0.7 < pareto_k(5 * generator.standard_t(2, size=1000))


@pytest.mark.parametrize("seed", range(6))
def test_no_tail_is_fitted_to_a_few_values(seed):
    """Six gates give seven weights: the fit to their steps was about -3, which reads as very good."""
    ones = (np.random.default_rng(seed).random((1000, 6)) < 0.5).sum(1)
    weights = ones * np.log(0.9 / 0.5) + (6 - ones) * np.log(0.1 / 0.5)
    assert np.isnan(pareto_k(weights))
    assert np.isfinite(pareto_k(weights + 1e-3 * np.random.default_rng(seed).normal(size=1000)))


def test_draws_that_hardly_count_are_told_where_their_tail_cannot_be():
    gated, rows = wide_and_sure()
    gated.log_odds.data[:] = 12.0
    gated.log_odds.data[0] = 0.0  # an input, one gate in two minds: two weights
    answer = bp.diagnose(gated, rows=rows, draws=50).faithful
    assert np.isnan(answer["PSIS"]) and "k̂ cannot be told" in answer.why
    share = int(re.search(r"count as (\d+)%", answer.why)[1])
    assert share == pytest.approx(50, abs=20)  # those of the better mask


def test_draws_alone_are_diagnosed_and_the_table_shows_everything(long, tmp_path):
    result = bp.diagnose(
        bp.posterior.read(bp.posterior.write(long.posterior().to_arviz(draws=20), tmp_path / "p.nc"))
    )
    same = bp.diagnose(long, draws=20)
    assert [a.verdict for a in result.answers] == [a.verdict for a in same.answers]
    text = str(result)
    for answer in result.answers:
        assert answer.question in text
    assert "→ fit with four seeds" in text and max(map(len, text.splitlines())) <= 100
    with pytest.raises(PosteriorError, match="draws alone have no network"):
        bp.diagnose(long.posterior().to_arviz(draws=20), rows=(X, Y))
    with pytest.raises(PosteriorError, match="not by bayesprune"):
        foreign = {"posterior": {"mu": np.zeros((2, 5))}}
        bp.diagnose(arviz.from_dict(**foreign) if hasattr(arviz, "psislw") else arviz.from_dict(foreign))
