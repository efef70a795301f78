"""Priors under which gates know of each other: how near a guide that holds correlation is to what is exact.

Regressions on seven gated inputs, weights held fixed, so that p(z | y) is known for all 128 masks. Under
independent gates the divergence from it is that of the best product, or more.
"""

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.svi import Engine, GateSteps, Recipe
from bayesprune.svi.estimators import all_configurations
from tests.statistical.test_own_priors import double_precision  # noqa: F401
from tests.svi.test_linked import Neighbours, chain

UNITS, ROWS, NOISE = 7, 60, 2.0


def posed(prior, guide, correlation):
    """Inputs of a pairwise correlation, exactly; every second one matters."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.linalg.qr(torch.randn(ROWS, UNITS, generator=generator))[0] * ROWS**0.5
    factor = torch.linalg.cholesky((1 - correlation) * torch.eye(UNITS) + correlation)
    x = raw @ factor.T
    weight = torch.full((UNITS,), 0.4)
    y = x @ (weight * (torch.arange(UNITS) % 2)) + NOISE * torch.randn(ROWS, generator=generator)
    network = nn.Sequential(nn.Linear(UNITS, 1, bias=False))
    network[0].weight.data.copy_(weight)
    likelihood = bp.Gaussian(rows=ROWS, scale=NOISE, learn_scale=False).double()
    gated = bp.gate(network, x[:1], prior=prior, likelihood=likelihood, initial_inclusion=0.5, guide=guide)
    return gated, x, y


def distances(prior, guide, correlation, estimator="enumeration", steps=150, rate=0.1):
    """KL(q ‖ exact) in nats, and the mean error of inclusion probabilities and of correlations."""
    gated, x, y = posed(prior, guide, correlation)
    gates = GateSteps(learning_rate=rate, momentum=0.8, clip=0.5, every=1, bound=12.0)
    still = torch.optim.SGD(gated.network.parameters(), lr=0.0)
    engine = Engine(gated, Recipe(estimator=estimator, gates=gates), seed=0, optimizer=still)
    state = engine.init()
    torch.manual_seed(0)
    for _ in range(steps):
        state, _ = engine.step(state, (x, y))
    z = all_configurations(UNITS).double()
    with torch.no_grad():
        nll = gated.likelihood.nll(gated.outputs(x, {"input": z.unsqueeze(1)}), y).sum(-1)
        log_p = (gated.gate_priors().log_prob({"input": z}) - nll).log_softmax(0)
        log_q = gated.gate_guide("input").log_prob(z)
    (mean_p, corr_p), (mean_q, corr_q) = moments(log_p, z), moments(log_q, z)
    kl = (log_q.exp() * (log_q - log_p)).sum().item()
    return kl, (mean_p - mean_q).abs().mean().item(), (corr_p - corr_q).abs().mean().item()


def moments(log_prob, z):
    p = log_prob.exp()
    mean = p @ z
    covariance = (z * p.unsqueeze(1)).T @ z - torch.outer(mean, mean)
    scale = covariance.diagonal().sqrt()
    return mean, covariance / torch.outer(scale, scale)


def test_a_chain_is_held_exactly_where_each_input_has_its_own_evidence():
    """Orthogonal inputs: the posterior under a Markov chain is one, which the guide of one lag can be."""
    kl, mean, correlation = distances(chain, bp.Autoregressive(lags=(1,)), 0.0)
    assert kl < 1e-4 and mean < 1e-3 and correlation < 1e-3
    alone = distances(chain, None, 0.0)
    assert alone[0] > 0.3 and alone[1] > 0.05 and alone[2] > 0.1


CASES = {
    "Markov chain": (chain, bp.Autoregressive(lags=(1, 2))),
    "Ising": (lambda group: Neighbours(group.size), bp.Autoregressive(lags=(1, 2))),
}


@pytest.mark.parametrize("prior, guide", CASES.values(), ids=CASES)
def test_correlated_inputs_too_are_closer_than_under_independent_gates(prior, guide):
    """Inputs correlated by 0.3: under three quarters of the divergence, and nearer in all moments."""
    held, alone = distances(prior, guide, 0.3), distances(prior, None, 0.3)
    assert held[0] < 0.75 * alone[0] and held[1] < alone[1] and held[2] < 0.8 * alone[2]


@pytest.mark.parametrize("estimator", ["curved", "second_order"])
def test_estimators_by_draws_learn_links(estimator):
    """One draw for each of 60 rows a step, seed fixed; under independent gates the divergence is 0.57."""
    kl, _, correlation = distances(chain, bp.Autoregressive(lags=(1,)), 0.0, estimator, 600, 0.02)
    assert kl < 0.06 and correlation < 0.06
