"""Linear regression with at most a dozen gated inputs: the learned posterior is the enumerated one.

Weights are held fixed and the noise is known, so the objective F(θ) = E_θ[L(z)] + penalty(θ) is known for all
2^K masks. Two exact statements follow. Where the likelihood factorises over the inputs (orthogonal design)
the posterior is a product of Bernoullis, which the guide can reach; elsewhere coordinate ascent, each
coordinate solved in closed form (logit θ_u = logit π − (E[L | z_u = 1] − E[L | z_u = 0])), gives the
stationary points of the mean-field objective.
"""

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.svi import Engine, GateSteps, Recipe
from bayesprune.svi.estimators import all_configurations

ROWS, NOISE = 60, 1.0
PRIOR = 0.3


@pytest.fixture(autouse=True)
def double_precision():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.double)
    yield
    torch.set_default_dtype(before)


def regression(units, correlation, seed=0):
    """Inputs of a given pairwise correlation (0: exactly orthogonal), and a gated linear model."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(ROWS, units, generator=generator)
    x = torch.linalg.qr(raw)[0] * ROWS**0.5
    factor = torch.linalg.cholesky((1 - correlation) * torch.eye(units) + correlation)
    x = x @ factor.T
    weight = torch.linspace(-0.45, 0.45, units)
    y = (x @ weight + NOISE * torch.randn(ROWS, generator=generator)).unsqueeze(1)
    network = nn.Sequential(nn.Linear(units, 1, bias=False))
    network[0].weight.data.copy_(weight)
    likelihood = bp.Gaussian(rows=ROWS, scale=NOISE, learn_scale=False).double()
    gated = bp.gate(
        network,
        x[:1],
        prior=priors.BernoulliGates(priors.Fixed(PRIOR)),
        likelihood=likelihood,
        initial_inclusion=0.5,
    )
    return gated, x, y


def log_likelihoods(gated, x, y):
    """(2^K,) log p(y | x, z) of every mask, and the masks."""
    masks = all_configurations(x.shape[1]).double()
    means = (masks * gated.network.network[-1].weight[0].detach()) @ x.T
    return -0.5 * (y.T - means).square().sum(-1) / NOISE**2, masks


def exact_inclusion(gated, x, y):
    scores, masks = log_likelihoods(gated, x, y)
    prior = (masks * torch.logit(torch.tensor(PRIOR))).sum(-1)
    return torch.softmax(scores + prior, 0) @ masks


def coordinate_ascent(gated, x, y, start):
    scores, masks = log_likelihoods(gated, x, y)
    theta = start.clone()
    for _ in range(500):
        for unit in range(len(theta)):
            share = torch.where(masks > 0, theta, 1 - theta)
            share[:, unit] = 1.0
            weighted = share.prod(-1) * scores
            on = masks[:, unit] > 0
            evidence = weighted[on].sum() - weighted[~on].sum()
            theta[unit] = torch.sigmoid(torch.logit(torch.tensor(PRIOR)) + evidence)
    return theta


def learn(gated, x, y, estimator, steps, rate, tail=0.25):
    """Gate steps alone (the weights stand still); the mean of the last steps' probabilities."""
    gates = GateSteps(learning_rate=rate, momentum=0.5, clip=1.0, every=1, bound=12.0)
    engine = Engine(gated, Recipe(estimator=estimator, gates=gates), seed=0)
    for group in engine.optimiser.param_groups:
        group["lr"] = 0.0
    state, total, count = engine.init(), 0.0, 0
    for step in range(steps):
        state, _ = engine.step(state, (x, y))
        if step >= steps * (1 - tail):
            total, count = total + gated.inclusion_prob().detach(), count + 1
    return total / count


@pytest.mark.parametrize("units", [4, 8])
def test_exact_posterior_is_learned_where_it_factorises(units):
    gated, x, y = regression(units, correlation=0.0)
    exact = exact_inclusion(gated, x, y)
    assert ((exact > 0.05) & (exact < 0.95)).any()  # not a trivial one
    learned = learn(gated, x, y, "enumeration", steps=250, rate=0.2)
    torch.testing.assert_close(learned, exact, rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("correlation", [0.3, 0.8])
def test_mean_field_optimum_is_learned_where_inputs_are_correlated(correlation):
    gated, x, y = regression(5, correlation)
    learned = learn(gated, x, y, "enumeration", steps=600, rate=0.1)
    optimum = coordinate_ascent(gated, x, y, learned)  # the stationary point of that basin
    torch.testing.assert_close(learned, optimum, rtol=0.0, atol=1e-4)


def objective(gated, x, y, theta):
    scores, masks = log_likelihoods(gated, x, y)
    share = torch.where(masks > 0, theta, 1 - theta).prod(-1)
    entropy = -(torch.xlogy(theta, theta) + torch.xlogy(1 - theta, 1 - theta)).sum()
    return share @ scores + (theta * torch.logit(torch.tensor(PRIOR))).sum() + entropy


def test_mean_field_bounds_the_evidence_and_is_tight_where_inputs_are_orthogonal():
    for correlation in (0.0, 0.8):
        gated, x, y = regression(5, correlation)
        learned = learn(gated, x, y, "enumeration", steps=600, rate=0.1)
        scores, masks = log_likelihoods(gated, x, y)
        evidence = torch.logsumexp(scores + (masks * torch.logit(torch.tensor(PRIOR))).sum(-1), 0)
        gap = (evidence - objective(gated, x, y, learned)).item()
        assert gap >= -1e-9
        assert (gap < 1e-6) == (correlation == 0.0)


@pytest.mark.parametrize(
    "estimator, rate, tolerance",
    [
        ("second_order", 0.01, 0.1),
        pytest.param("arm", 0.01, 0.1, marks=pytest.mark.nightly),
        ("reinforce", 0.002, 0.25),
    ],
)
def test_sampled_estimators_find_the_same_posterior(estimator, rate, tolerance):
    """Randomised, with one seed fixed: the tolerance is five standard deviations (0.02; REINFORCE 0.05) over
    seeds of the last half's average, as measured on six: a false-alarm rate under 1e-5."""
    gated, x, y = regression(4, correlation=0.0)
    exact = exact_inclusion(gated, x, y)
    learned = learn(gated, x, y, estimator, steps=2000, rate=rate, tail=0.5)
    torch.testing.assert_close(learned, exact, rtol=0.0, atol=tolerance)
