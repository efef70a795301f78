"""Predictions averaged over masks, weights and fits, against enumeration and conjugacy."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import DataError, LikelihoodError, PosteriorError
from bayesprune.prediction.shares import stacked
from bayesprune.svi.estimators import all_configurations

INPUTS, DRAWS = 4, 20_000
PRIOR = priors.BernoulliGates(priors.Fixed(0.5))


def gated(likelihood, columns=1, spread=None, seed=0, log_odds=(0.5, -1.0, 2.0, 0.0)):
    """One linear layer of four gated inputs; weights of standard deviation ``spread``, if any."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(INPUTS, columns)).double()
    weights = priors.NormalWeights(scale=1.0, posterior="normal" if spread else "delta")
    model = bp.gate(net, torch.zeros(1, INPUTS).double(), prior=PRIOR, likelihood=likelihood, weights=weights)
    model.log_odds.data.copy_(torch.tensor(log_odds))
    for scale in model.log_scales.values():
        scale.data.fill_(math.log(spread))
    return model


def inputs(rows=5, seed=1):
    return torch.randn(rows, INPUTS, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def by_mask(model, x):
    """Outputs (masks, rows, columns) of all sixteen masks, and the share of each."""
    masks = all_configurations(INPUTS).double()
    theta = torch.sigmoid(model.log_odds.detach()).double()
    share = torch.where(masks > 0, theta, 1 - theta).prod(-1)
    layer = model.network.get_parameter("0.weight"), model.network.get_parameter("0.bias")
    with torch.no_grad():
        return torch.stack([(x * mask) @ layer[0].T + layer[1] for mask in masks]), share


def entropy(p):
    return -torch.xlogy(p, p).sum(-1)


# ---- masks, against enumeration. 20,000 draws: a mean in [0, 1] has a standard error below 0.0036


def test_classes_are_averaged_over_masks():
    model, x = gated(bp.Categorical(rows=10), columns=3), inputs()
    found = bp.predict(model, x, draws=DRAWS)
    outputs, share = by_mask(model, x)
    probs = outputs.softmax(-1)
    mean = torch.tensordot(share, probs, dims=1)
    within = torch.tensordot(share, entropy(probs), dims=1)
    torch.testing.assert_close(found.mean, mean, atol=0.015, rtol=0)
    torch.testing.assert_close(found.aleatoric, within, atol=0.02, rtol=0)
    torch.testing.assert_close(found.epistemic, entropy(mean) - within, atol=0.02, rtol=0)
    torch.testing.assert_close(found.total, entropy(found.mean))
    labels = torch.tensor([0, 1, 2, 1, 0])
    right = mean.gather(1, labels[:, None]).squeeze(1).log()
    torch.testing.assert_close(found.log_prob(labels), right, atol=0.1, rtol=0)
    torch.testing.assert_close(found.distribution.log_prob(labels), found.log_prob(labels))
    torch.testing.assert_close(found.distribution.probs, found.mean)


def test_labels_are_averaged_over_masks():
    model, x = gated(bp.Bernoulli(rows=10), columns=2), inputs()
    found = bp.predict(model, x, draws=DRAWS)
    outputs, share = by_mask(model, x)
    probs = outputs.sigmoid()
    mean = torch.tensordot(share, probs, dims=1)
    both = lambda p: entropy(torch.stack([p, 1 - p], -1))  # noqa: E731
    torch.testing.assert_close(found.mean, mean, atol=0.015, rtol=0)
    torch.testing.assert_close(found.total, both(found.mean))
    right = both(mean) - torch.tensordot(share, both(probs), dims=1)
    torch.testing.assert_close(found.epistemic, right, atol=0.02, rtol=0)
    labels = torch.tensor([[0, 1], [1, 1], [0, 0], [1, 0], [0, 1]])
    joint = torch.where(labels > 0, probs, 1 - probs).prod(-1)  # (masks, rows): labels of a row hang together
    torch.testing.assert_close(
        found.log_prob(labels), torch.tensordot(share, joint, dims=1).log(), atol=0.1, rtol=0
    )
    torch.testing.assert_close(found.distribution.log_prob(labels.double()), found.log_prob(labels))


def test_counts_are_averaged_over_masks():
    model, x = gated(bp.Poisson(rows=10)), inputs()
    found = bp.predict(model, x, draws=DRAWS)
    outputs, share = by_mask(model, x)
    rates = outputs.exp()
    mean = torch.tensordot(share, rates, dims=1)
    torch.testing.assert_close(found.mean, mean, rtol=0.03, atol=0)
    torch.testing.assert_close(found.aleatoric, found.mean)
    between = torch.tensordot(share, (rates - mean).square(), dims=1)
    torch.testing.assert_close(found.epistemic, between, rtol=0.1, atol=0)
    low, high = found.interval(0.8)
    for row in range(len(x)):
        each = stats.poisson(rates[:, row, 0].numpy())
        for end, level in ((low, 0.1), (high, 0.9)):
            k = float(end[row])
            at, before = (float(share.numpy() @ each.cdf(c)) for c in (k, k - 1))
            assert before - 0.01 < level <= at + 0.01
    y = torch.tensor([0, 1, 2, 3, 4])
    right = np.log(
        [share.numpy() @ stats.poisson.pmf(int(c), rates[:, n, 0].numpy()) for n, c in enumerate(y)]
    )
    np.testing.assert_allclose(found.log_prob(y), right, atol=0.1)


def test_real_targets_are_averaged_over_masks_and_weights():
    """x∘z with w ~ N(μ, s²): Var = Σ x² (θ(μ² + s²) − θ²μ²) + s², the bias' variance, beside the noise's."""
    noise, spread = 0.3, 0.2
    model = gated(bp.Gaussian(rows=10, scale=noise, learn_scale=False).double(), spread=spread)
    x = inputs()
    found = bp.predict(model, x, draws=DRAWS)
    theta = torch.sigmoid(model.log_odds.detach()).double()
    mu, bias = (model.network.get_parameter(n).detach() for n in ("0.weight", "0.bias"))
    mean = x @ (theta * mu).T + bias
    variance = x.square() @ (theta * (mu.square() + spread**2) - (theta * mu).square()).T + spread**2
    sem = (variance / DRAWS).sqrt()
    assert ((found.mean - mean).abs() < 5 * sem).all()  # five means: a false alarm in 3·10⁵ runs
    torch.testing.assert_close(found.epistemic, variance, rtol=0.06, atol=0)
    torch.testing.assert_close(found.aleatoric, torch.full_like(mean, noise**2))
    sampled = found.sample(40_000)
    assert sampled.shape == (40_000, 5, 1)
    torch.testing.assert_close(sampled.var(0), found.total, rtol=0.06, atol=0)


def test_a_conjugate_posterior_covers_as_it_says():
    """Bayesian linear regression with all gates open: the exact predictive is normal, its quantiles known."""
    noise, spread = 0.5, 0.7
    model = gated(
        bp.Gaussian(rows=10, scale=noise, learn_scale=False).double(), spread=spread, log_odds=(40.0,) * 4
    )
    x = inputs(20)
    found = bp.predict(model, x, draws=DRAWS)
    mu, bias = (model.network.get_parameter(n).detach() for n in ("0.weight", "0.bias"))
    sd = (spread**2 * (x.square().sum(1, keepdim=True) + 1) + noise**2).sqrt()
    mean = x @ mu.T + bias
    low, high = found.interval(0.9)
    z = stats.norm.ppf(0.95)
    torch.testing.assert_close(low, mean - z * sd, atol=0.1, rtol=0)
    torch.testing.assert_close(high, mean + z * sd, atol=0.1, rtol=0)
    y = mean + 0.8 * sd
    right = dist.Normal(mean, sd).log_prob(y).squeeze(1)
    torch.testing.assert_close(found.log_prob(y), right, atol=0.05, rtol=0)
    torch.testing.assert_close(found.distribution.log_prob(y), found.log_prob(y))
    targets = found.sample(500, seed=3)  # of the exact predictive, to what the draws leave
    share = float(((targets >= low) & (targets <= high)).double().mean())
    assert abs(share - 0.9) < 0.02


def test_quantiles_of_a_mixture_are_those_of_its_distribution_function():
    model, x = gated(bp.Gaussian(rows=10, scale=0.05, learn_scale=False).double()), inputs()
    found = bp.predict(model, x, draws=500)
    low, high = found.interval(0.5)
    shares, means = found.shares.numpy(), found.components.means().numpy()
    for end, level in ((low, 0.25), (high, 0.75)):
        below = (shares[:, None, None] * stats.norm.cdf(end.numpy(), means, 0.05)).sum(0)
        np.testing.assert_allclose(below, level, atol=1e-9)


def test_intervals_of_probabilities_are_over_masks():
    model, x = gated(bp.Categorical(rows=10), columns=3), inputs()
    found = bp.predict(model, x, draws=DRAWS)
    outputs, share = by_mask(model, x)
    low, high = found.interval(0.9)
    probs = outputs.softmax(-1)
    for end, level in ((low, 0.05), (high, 0.95)):
        less = (share[:, None, None] * (probs < end - 1e-9)).sum(0)
        up_to = (share[:, None, None] * (probs <= end + 1e-9)).sum(0)
        assert (less < level + 0.01).all() and (up_to > level - 0.01).all()


# ---- a fit that was decided, and one that was not


def known():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, INPUTS, generator=generator)
    return x, x[:, :1] - x[:, 1:2] + 0.5 * torch.randn(60, 1, generator=generator)


def fit(seed=0, **settings):
    x, y = known()
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(INPUTS, 8), nn.Tanh(), nn.Linear(8, 1))
    model = bp.gate(
        net, x[:1], prior=priors.BernoulliGates(priors.Flattening(2.0)), likelihood=bp.Gaussian(60)
    )
    return bp.fit(model, (x, y), epochs=40, batch_size=20, seed=seed, progress=False, **settings)


@pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
def test_a_decided_fit_predicts_what_its_pruned_network_does_and_knows_no_doubt():
    result, (x, _) = fit(recipe=bp.Recipe(compact_weights="points")), known()
    found = bp.predict(result, x, batch_size=7)
    torch.testing.assert_close(found.mean.float(), bp.prune(result)(x), atol=1e-4, rtol=1e-4)
    assert len(found.shares) == 1 and (found.epistemic == 0).all()
    noise = result.likelihood.learnt()["noise_scale"]
    torch.testing.assert_close(found.total, torch.full_like(found.mean, noise**2))
    before = bp.predict(result, x, at="decision")
    assert len(before.shares) > 1 and (before.epistemic > 0).all()


@pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")
def test_weights_with_a_posterior_and_masks_left_undecided_are_drawn():
    x, _ = known()
    spread = bp.predict(fit(recipe=bp.Recipe(compact_weights="normal")), x, draws=30)
    assert len(spread.shares) == 30 and (spread.epistemic > 0).all()
    assert (bp.predict(fit(decide=False), x, draws=200).epistemic > 0).any()
    again = bp.predict(fit(recipe=bp.Recipe(compact_weights="normal")), x, draws=30, batch_size=7)
    torch.testing.assert_close(again.mean, spread.mean)  # weights are one draw over all batches


# ---- several fits


def two(likelihood):
    return [gated(likelihood(), columns=3, seed=seed, log_odds=(40.0,) * 4) for seed in (0, 1)]


def test_fits_count_as_they_are_weighed():
    models, x = two(lambda: bp.Categorical(rows=10)), inputs()
    apart = [bp.predict(model, x).mean for model in models]
    for weights, shares in (("equal", (0.5, 0.5)), ([3.0, 1.0], (0.75, 0.25))):
        found = bp.predict(models, x, weights=weights)
        torch.testing.assert_close(found.mean, shares[0] * apart[0] + shares[1] * apart[1])
        torch.testing.assert_close(found.of_fits, torch.tensor(shares).double())
    assert (found.epistemic > 0).all()


def test_fits_of_different_noise_keep_each_their_own():
    models = [
        gated(bp.Gaussian(rows=10, scale=s, learn_scale=False).double(), log_odds=(40.0,) * 4)
        for s in (0.1, 2.0)
    ]
    found = bp.predict(models, inputs())
    torch.testing.assert_close(found.aleatoric, torch.full_like(found.mean, (0.1**2 + 2.0**2) / 2))
    assert (found.epistemic < 1e-20).all()  # one mean
    low, _ = found.interval(0.9)
    below = [stats.norm.cdf((low - found.mean).numpy() / s).mean() for s in (0.1, 2.0)]
    assert abs(np.mean(below) - 0.05) < 1e-9


def test_stacking_finds_the_best_mixture():
    """Rows drawn from 0.7 p₁ + 0.3 p₂: the weights are those that a fine grid finds best."""
    scores = torch.log(torch.rand(2, 400, generator=torch.Generator().manual_seed(0), dtype=torch.double))
    grid = torch.linspace(0.0005, 0.9995, 2000, dtype=torch.double)
    values = [float(torch.logsumexp(scores + torch.stack([w, 1 - w]).log()[:, None], 0).mean()) for w in grid]
    assert abs(float(stacked(scores)[0]) - float(grid[int(np.argmax(values))])) < 2e-3
    models, x = two(lambda: bp.Categorical(rows=10)), inputs(2000, seed=4)
    mixed = 0.7 * bp.predict(models[0], x).mean + 0.3 * bp.predict(models[1], x).mean
    y = dist.Categorical(probs=mixed).sample()
    held = bp.predict(models, inputs(), weights="stacking", rows=(x, y)).of_fits
    alone = torch.stack([bp.predict(m, x).log_prob(y) for m in models])
    torch.testing.assert_close(held, stacked(alone))
    assert abs(float(held[0]) - 0.7) < 0.2


def test_fits_are_weighed_by_their_elbo():
    x, _ = known()
    with pytest.warns() as _:
        fits = [fit(seed=seed, recipe=bp.Recipe(gates=bp.GateSteps())) for seed in (0, 1)]
    elbos = torch.tensor([f.history[-1].elbo for f in fits], dtype=torch.double)
    found = bp.predict(fits, x, weights="elbo")
    torch.testing.assert_close(found.of_fits, torch.softmax(elbos, 0))


# ---- a temperature


def test_a_temperature_is_found_that_undoes_another():
    """Logits three times too large, of which a temperature of three is right: found to 5 % by 4,000 rows."""
    model, x = gated(bp.Categorical(rows=10), columns=3, log_odds=(40.0,) * 4), inputs(4000, seed=2)
    y = bp.predict(model, x).sample(1)[0]
    for parameter in model.network.parameters():
        parameter.data.mul_(3.0)
    found = bp.temperature(model, (x, y))
    assert abs(found - 3.0) < 0.3
    cooled, hot = bp.predict(model, x, temperature=found), bp.predict(model, x)
    assert cooled.log_prob(y).mean() > hot.log_prob(y).mean()
    outputs, _ = by_mask(model, x)
    torch.testing.assert_close(cooled.mean, (outputs[-1] / found).softmax(-1))


def test_a_temperature_of_noise_multiplies_its_variance():
    likelihood = bp.Gaussian(rows=10, scale=0.4, learn_scale=False).double()
    model, x = gated(likelihood, log_odds=(40.0,) * 4), inputs(4000, seed=2)
    y = bp.predict(model, x, temperature=2.5).sample(1)[0]
    assert abs(bp.temperature(model, (x, y)) - 2.5) < 0.25
    found = bp.predict(model, x, temperature=2.5)
    torch.testing.assert_close(found.total, torch.full_like(found.mean, 2.5 * 0.4**2))


# ---- likelihoods of one's own, and those that learn from a teacher


def test_a_likelihood_of_ones_own_is_averaged_by_its_density():
    model = gated(bp.Own(rows=10, distribution=lambda out: dist.StudentT(4.0, out[..., 0], 0.5)))
    x = inputs()
    found = bp.predict(model, x, draws=DRAWS)
    outputs, share = by_mask(model, x)
    y = torch.linspace(-1, 1, 5).double()
    right = (share[:, None] * dist.StudentT(4.0, outputs[..., 0], 0.5).log_prob(y).exp()).sum(0).log()
    torch.testing.assert_close(found.log_prob(y), right, atol=0.05, rtol=0)
    torch.testing.assert_close(found.aleatoric, torch.full((5,), 0.5).double())  # 0.5² · 4 / (4 − 2)
    low, _ = found.interval(0.9)
    for row in range(5):
        below = stats.t(4, outputs[:, row, 0].numpy(), 0.5).cdf(float(low[row]))
        assert abs(share.numpy() @ below - 0.05) < 0.015
    with pytest.raises(PosteriorError, match=r"none that Pyro has: take \.log_prob"):
        _ = found.distribution
    with pytest.raises(LikelihoodError, match="p\\^\\(1/T\\) of Own"):
        bp.predict(model, x, temperature=2.0)
    both = bp.predict([model, model], x, draws=50)
    assert both.sample(20).shape == (20, 5) and both.mean.shape == (5,)


def test_a_distribution_without_a_mean_says_so():
    model = gated(bp.Own(rows=10, distribution=lambda out: dist.Cauchy(out[..., 0], 1.0)))
    found = bp.predict(model, inputs(), draws=10)
    assert found.sample(3).shape == (3, 5)
    with pytest.raises(PosteriorError, match="no finite mean"):
        _ = found.mean


def test_what_learns_from_a_teacher_predicts_targets():
    plain = gated(bp.Categorical(rows=10), columns=3)
    taught = gated(bp.Distilled(bp.Categorical(rows=10), lambda x: x[:, :3]), columns=3)
    x = inputs()
    torch.testing.assert_close(bp.predict(taught, x).mean, bp.predict(plain, x).mean)


# ---- what is refused, and what comes in


def test_rows_come_in_every_form():
    model, x = gated(bp.Categorical(rows=10), columns=3), inputs(10)
    right = bp.predict(model, x).mean
    y = torch.zeros(10).long()
    from torch.utils.data import DataLoader, TensorDataset

    for form in (x.numpy(), (x, y), TensorDataset(x, y), DataLoader(TensorDataset(x, y), batch_size=3)):
        torch.testing.assert_close(bp.predict(model, form).mean, right)
    assert len(bp.predict(model, x)) == 10


def test_a_prediction_stays_what_it_was_when_the_model_goes_on():
    model, x = gated(bp.Gaussian(rows=10).double()), inputs()
    found = bp.predict(model, x)
    before = found.total.clone()
    model.likelihood.log_scale.data.fill_(2.0)
    assert torch.equal(found.total, before)


REFUSED = [
    (dict(results=nn.Linear(4, 3)), PosteriorError, "takes the results of fit.* got Linear"),
    (dict(results=[]), PosteriorError, "got none"),
    (dict(draws=0), PosteriorError, "draws=0"),
    (dict(temperature=0.0), PosteriorError, "temperature=0.0"),
    (dict(temperature=True), PosteriorError, "temperature=True"),
    (dict(seed=-1), PosteriorError, "seed=-1"),
    (dict(at="start"), PosteriorError, "at='start'"),
    (dict(at="decision"), PosteriorError, "fit 0 has kept nothing of a decision"),
    (dict(weights="best"), PosteriorError, "weights='best'"),
    (dict(weights=[1.0, 2.0]), PosteriorError, "must be 1 numbers"),
    (dict(weights=[-1.0]), PosteriorError, "at least 0"),
    (dict(weights="elbo"), PosteriorError, "fit 0 has no ELBO"),
    (dict(weights="stacking"), PosteriorError, "needs rows="),
    (dict(rows=(inputs(), torch.zeros(5).long())), PosteriorError, "leave one out"),
    (dict(x=torch.zeros(2, 7).double()), DataError, "7"),
]


@pytest.mark.parametrize(("changed", "error", "message"), REFUSED, ids=[m for _, _, m in REFUSED])
def test_what_cannot_be_predicted_is_said(changed, error, message):
    settings = {"results": gated(bp.Categorical(rows=10), columns=3), "x": inputs(), **changed}
    with pytest.raises(error, match=message):
        bp.predict(settings.pop("results"), settings.pop("x"), **settings)


def test_what_cannot_be_asked_of_a_prediction_is_said():
    model = gated(bp.Categorical(rows=10), columns=3)
    found = bp.predict(model, inputs())
    with pytest.raises(PosteriorError, match="level=90"):
        found.interval(90)
    with pytest.raises(PosteriorError, match="3 targets, and 5 rows"):
        found.log_prob(torch.zeros(3).long())
    with pytest.raises(PosteriorError, match=r"labels must lie in 0\.\.2"):
        found.log_prob(torch.full((5,), 7))
    with pytest.raises(PosteriorError, match="draws=0"):
        found.sample(0)
    with pytest.raises(PosteriorError, match="likelihood Bernoulli and fit 0 Categorical"):
        bp.predict([model, gated(bp.Bernoulli(rows=10))], inputs())
    with pytest.raises(LikelihoodError, match=r"p\^\(1/T\) of Poisson"):
        bp.predict(gated(bp.Poisson(rows=10)), inputs(), temperature=2.0)
    with pytest.raises(PosteriorError, match="end of what is looked through"):
        sure = gated(bp.Categorical(rows=10), columns=3, log_odds=(40.0,) * 4)
        bp.temperature(sure, (inputs(), bp.predict(sure, inputs()).mean.argmax(-1)))
