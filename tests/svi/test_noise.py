"""Noise on units in the fused step: its expected loss is that of Pyro, and the one known in closed form."""

from dataclasses import replace
from types import SimpleNamespace

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.svi import Engine, Recipe
from bayesprune.svi.objective import gate_nats, weight_nats
from bayesprune.svi.weight_noise import WeightNoise

pytestmark = pytest.mark.usefixtures("double_precision")
FALSE_ALARM = 1e-5  # of each randomised test: |error| > 4.42 standard errors of a Gaussian
SIGMAS = 4.42
ESTIMATORS = ["straight_through", "second_order", "curved", "arm", "reinforce", "enumeration"]


def gate(network, likelihood, unit_noise, inputs=3):
    prior = priors.BernoulliGates(priors.Flattening(price=1.0))
    return bp.gate(
        network, torch.zeros(1, inputs), prior=prior, likelihood=likelihood, unit_noise=unit_noise,
        initial_inclusion=0.7,
    )  # fmt: skip


def losses(gated, batch, estimator, steps, decided=False):
    """(steps,), mean NLL of a row in each of many fused steps that move nothing."""
    engine = Engine(gated, Recipe(estimator=estimator), seed=0)
    for group in engine.optimiser.param_groups:
        group["lr"] = 0.0
    state, values = replace(engine.init(), moving=False, decided=decided), []
    for _ in range(steps):
        state, info = engine.step(state, batch)
        values.append(info.nll)
    return torch.stack(values)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_expected_loss_is_that_of_trace_elbo(estimator):
    """Two Monte-Carlo means, whose difference has the standard error of both together."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    gated = gate(network, bp.Categorical(rows=24), {"input": 0.5, "0": 0.9})
    x = 2 * torch.randn(8, 3)
    batch = x, (x[:, 0] > 0).long()
    with torch.no_grad():
        probs = gated.inclusion_prob()
        nats = gate_nats(gated, probs) + weight_nats(gated, probs)
    fused = gated.likelihood.rows * losses(gated, batch, estimator, 300) + nats
    pyro.set_rng_seed(0)
    slow = torch.tensor([Trace_ELBO().loss(gated.model, gated.guide, *batch) for _ in range(300)])
    error = (fused.var() / 300 + slow.var() / 300).sqrt()
    assert (fused.mean() - slow.mean()).abs() < SIGMAS * error
    noiseless = gate(network, bp.Categorical(rows=24), 0.0)
    quiet = gated.likelihood.rows * losses(noiseless, batch, "enumeration", 1) + nats
    assert (fused.mean() - quiet).abs() > 2 * error  # the noise is felt


@pytest.mark.parametrize("decided", [False, True], ids=["gates drawn", "gates decided"])
def test_expected_squared_error_is_the_one_in_closed_form(decided):
    """A linear output Σ w_u z_u f_u x_u + b has the variance Σ (w_u x_u)² (θ_u (1 + σ²) − θ_u²)."""
    torch.manual_seed(0)
    likelihood = bp.Gaussian(rows=10, scale=0.7, learn_scale=False).double()
    gated = gate(nn.Sequential(nn.Linear(3, 1)), likelihood, 0.6)
    x, y = torch.randn(5, 3), torch.randn(5, 1)
    drawn = losses(gated, (x, y), "straight_through", 2000, decided)
    theta = torch.ones(3) if decided else gated.inclusion_prob().detach()
    weight, bias = gated.network.network[-1].weight[0].detach(), gated.network.network[-1].bias.detach()
    mean = (x * weight * theta).sum(1, keepdim=True) + bias
    variance = (x * weight).square() @ (theta * (1 + 0.36) - theta.square())
    exact = likelihood.nll(mean, y).mean() + 0.5 * variance.mean() / 0.49
    assert (drawn.mean() - exact).abs() < SIGMAS * drawn.std() / 2000**0.5


def test_noise_multiplies_whole_channels():
    """Every position of a filter's output gets the same factor, and every row another one."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Identity(), nn.Conv2d(2, 1, 1, bias=False), nn.Flatten())
    likelihood = bp.Gaussian(rows=4, scale=1.0, learn_scale=False).double()
    prior = priors.BernoulliGates(priors.Flattening(price=1.0))
    gated = bp.gate(network, torch.ones(1, 1, 3, 3), prior=prior, likelihood=likelihood, unit_noise=0.5)
    engine = Engine(gated, Recipe(), seed=0)
    seen = []
    gated.network.register_forward_hook(lambda module, arguments, output: seen.append(output.detach()))
    engine.step(replace(engine.init(), decided=True), (torch.ones(4, 1, 3, 3), torch.zeros(4, 9)))
    (outputs,) = seen
    torch.testing.assert_close(outputs, outputs[:, :1].expand(4, 9))
    assert len(outputs[:, 0].unique()) == 4


def test_noise_of_weights_is_that_of_their_closed_form():
    """Two standard deviations of the noise: y = W x + b ± 2 √(x² σ_W² + σ_b²), and w ± 2 σ_w."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = torch.randn(4, 3), torch.randn(2, 3), torch.randn(2)
    scales = {"w": torch.rand(2, 3) + 0.1, "b": torch.rand(2) + 0.1}
    gated = SimpleNamespace(log_scales_by_tensor=lambda: {n: s.log() for n, s in scales.items()})
    noise = WeightNoise(gated, generator)
    noise._normal = lambda like: torch.full_like(like, 2.0)
    of_weights, mean = x.square() @ scales["w"].square().T, x @ weight.T
    both = (of_weights + scales["b"].square()).sqrt()
    torch.testing.assert_close(noise.linear(("w", "b"), x, weight, bias), mean + bias + 2 * both)
    torch.testing.assert_close(noise.linear(("w", "c"), x, weight, bias), mean + bias + 2 * of_weights.sqrt())
    torch.testing.assert_close(noise.linear(("w", None), x, weight, None), mean + 2 * of_weights.sqrt())
    torch.testing.assert_close(noise.linear(("v", "b"), x, weight, bias), mean + bias)  # a point
    torch.testing.assert_close(noise.draw("w", weight), weight + 2 * scales["w"])
    assert noise.draw("v", weight) is weight
    drawn = WeightNoise(gated, generator).linear(("w", "b"), x[:1].expand(20000, 3), weight, bias)
    error = drawn.var(0) / both[0].square() - 1  # relative standard error √(2 / n); false alarms 1e-5 of both
    assert float(error.abs().max()) <= 4.6 * (2 / 20000) ** 0.5
