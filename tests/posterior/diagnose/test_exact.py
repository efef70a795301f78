"""A mean-field guide on correlated inputs is certain, and wrong; the diagnosis says so in plain words.

Weights are known and equal, so that the targets tell how many inputs count, and at correlation 0.9 hardly
which. The guide is put at a stationary point of its own objective by coordinate ascent, exactly.
"""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import bayesprune as bp
from bayesprune.posterior.diagnose import exact_inclusion, rank_uniformity, sbc_rank
from bayesprune.posterior.diagnose.calibrated import exact_of
from bayesprune.posterior.diagnose.joint import log_joint
from bayesprune.posterior.diagnose.neighbours import bound, highest_probability, neighbours
from bayesprune.svi.estimators import all_configurations

UNITS, ROWS, PRIOR = 8, 60, 0.3


@pytest.fixture(autouse=True)
def double_precision():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.double)
    yield
    torch.set_default_dtype(before)


def regression(correlation, weight=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    raw = torch.linalg.qr(torch.randn(ROWS, UNITS, generator=generator))[0] * ROWS**0.5
    x = raw @ torch.linalg.cholesky((1 - correlation) * torch.eye(UNITS) + correlation).T
    y = weight * x[:, :3].sum(1) + torch.randn(ROWS, generator=generator)
    network = nn.Sequential(nn.Linear(UNITS, 1, bias=False))
    nn.init.constant_(network[0].weight, weight)
    likelihood = bp.Gaussian(rows=ROWS, scale=1.0, learn_scale=False).double()
    prior = bp.priors.BernoulliGates(bp.priors.Fixed(PRIOR))
    gated = bp.gate(network, x[:1], prior=prior, likelihood=likelihood, initial_inclusion=0.5)
    gated.network.requires_grad_(False)  # the weights are known
    return gated, (x, y.unsqueeze(1))


def ascend_(gated, rows):
    """Put the guide at the mean-field optimum of its basin: each coordinate in closed form, in turn."""
    masks = all_configurations(UNITS).double()
    scores = torch.from_numpy(log_joint(gated, masks, rows))
    theta = torch.full((UNITS,), 0.5)
    for _ in range(200):
        for unit in range(UNITS):
            share = torch.where(masks > 0, theta, 1 - theta)
            share[:, unit] = 1.0
            weighted, on = share.prod(-1) * scores, masks[:, unit] > 0
            theta[unit] = torch.sigmoid(weighted[on].sum() - weighted[~on].sum())
    gated.log_odds.data = torch.logit(theta, eps=1e-12)
    return gated


def test_joint_of_masks_is_that_of_the_regression():
    gated, (x, y) = regression(0.5)
    masks = all_configurations(UNITS)
    scores = log_joint(gated, masks, (x, y))
    means = masks.double() @ x.T
    expected = stats.norm.logpdf(y.T.numpy(), means.numpy()).sum(-1)
    kept = masks.sum(-1).numpy()
    expected += kept * np.log(PRIOR) + (UNITS - kept) * np.log(1 - PRIOR)
    assert scores == pytest.approx(expected, abs=1e-8)
    assert log_joint(gated, masks[:3], (x[:30], y[:30])) != pytest.approx(expected[:3])


def test_correlated_inputs_make_a_certain_mask_that_is_called_unfaithful():
    gated, rows = regression(0.9, weight=0.5)
    answers = bp.diagnose(ascend_(gated, rows), rows=rows, draws=500)
    assert answers.decided["entropy"] < 0.05, answers
    assert answers.faithful.verdict == "no"
    assert "certain but unfaithful" in answers.faithful.why
    assert answers.calibrated.verdict == "no" and answers.calibrated["largest"] > 0.3
    assert "stand for each other" in answers.calibrated.why
    assert "unfaithful" in str(answers)


def test_orthogonal_inputs_make_a_mask_that_is_certain_and_right():
    gated, rows = regression(0.0)
    answers = bp.diagnose(ascend_(gated, rows), rows=rows, draws=500)
    assert answers.decided.verdict == "yes"
    assert answers.faithful.verdict == "yes" and answers.calibrated.verdict == "yes", answers
    assert answers.calibrated["largest"] < 1e-6


def test_the_bound_is_above_the_exact_probability_and_below_one():
    gated, rows = regression(0.9, weight=0.5)
    ascend_(gated, rows)
    masks = all_configurations(UNITS)
    scores = log_joint(gated, masks, rows)
    hard, others = neighbours(gated)
    assert len(others) == UNITS + int(hard.sum()) * (UNITS - int(hard.sum()))
    number = int((masks == hard).all(1).nonzero())
    exact = float(np.exp(scores - np.logaddexp.reduce(scores))[number])
    assert exact <= bound(gated, rows) < 0.9
    assert highest_probability(0.0, np.log([0.5, 0.5])) == pytest.approx(0.5)


def test_enumeration_leaves_removed_units_out():
    gated, rows = regression(0.5)
    gated.remove_(torch.arange(UNITS) >= 5)
    guide, exact = exact_of(bp.Posterior.of(gated).fits[0], rows)
    masks = all_configurations(5)
    padded = torch.cat([masks, torch.zeros(32, 3)], 1)
    assert guide.shape == exact.shape == (5,)
    assert exact == pytest.approx(exact_inclusion(log_joint(gated, padded, rows), masks.numpy()))


@pytest.mark.parametrize("right", [True, False])
def test_ranks_are_uniform_for_the_exact_posterior_and_not_for_an_overconfident_one(right):
    """A rate from Beta(1, 1), five draws of it; the wrong posterior counts each of them thrice."""
    generator, draws, simulations = np.random.default_rng(0), 49, 400
    ranks = []
    for _ in range(simulations):
        rate = generator.beta(1, 1)
        kept = generator.binomial(5, rate) * (1 if right else 3)
        posterior = generator.beta(1 + kept, 1 + (5 if right else 15) - kept, size=draws)
        ranks.append(sbc_rank(rate, posterior, generator))
    p = rank_uniformity(np.array(ranks), draws)
    assert (p > 1e-3) == right
    gated, _ = regression(0.0)
    answer = bp.diagnose(gated, draws=20, ranks=(np.array(ranks), draws)).calibrated
    assert answer.verdict == ("yes" if right else "no")


def test_ties_of_discrete_statistics_are_broken_evenly():
    """A gate of which nothing is learnt: ranks are uniform, at a false-alarm rate of 1e-3."""
    generator, draws = np.random.default_rng(1), 9
    ranks = [
        sbc_rank(int(generator.random() < 0.3), (generator.random(draws) < 0.3).astype(int), generator)
        for _ in range(1000)
    ]
    assert rank_uniformity(np.array(ranks), draws) > 1e-3


def test_what_cannot_be_enumerated_is_not_asked():
    gated, _ = regression(0.0)
    assert "training rows" in bp.diagnose(gated, draws=20).calibrated.why
    wide = bp.gate(
        nn.Sequential(nn.Linear(13, 1)).double(),
        torch.zeros(1, 13),
        prior=bp.priors.BernoulliGates(bp.priors.Fixed(0.5)),
        likelihood=bp.Gaussian(rows=ROWS).double(),
    )
    answer = bp.diagnose(wide, rows=(torch.randn(ROWS, 13), torch.randn(ROWS, 1)), draws=20).calibrated
    assert answer.verdict == "not asked" and "13 gates are left" in answer.why
