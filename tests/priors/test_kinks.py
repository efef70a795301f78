"""Slopes of priors and of their divergences just where stand-ins for infinite logarithms begin."""

import math
from typing import ClassVar

import pytest
import torch
from torch.distributions import kl_divergence

import bayesprune as bp
from bayesprune import priors
from bayesprune.priors import FlatteningDistribution, Gates
from bayesprune.structure.groups import Group
from bayesprune.svi import objective
from tests.kinks import OffKinks

LAST = {dtype: 1 - torch.finfo(dtype).eps / 2 for dtype in (torch.float32, torch.float64)}
"""The largest number below one, which a sigmoid gives from log-odds of 17 (float32) or 37 (float64) on."""


@pytest.mark.parametrize("dtype", LAST)
def test_log_probabilities_have_their_slope_at_the_last_number_below_one(dtype) -> None:
    probs = torch.tensor([LAST[dtype], 0.5, torch.finfo(dtype).tiny], dtype=dtype, requires_grad=True)
    with OffKinks():
        (slope,) = torch.autograd.grad(Gates(probs=probs).log_prob(torch.zeros(3, dtype=dtype)), probs)
    torch.testing.assert_close(slope, -1 / (1 - probs.detach()))
    with OffKinks():
        (slope,) = torch.autograd.grad(Gates(probs=probs).log_prob(torch.ones(3, dtype=dtype)), probs)
    torch.testing.assert_close(slope, 1 / probs.detach())


@pytest.mark.parametrize("dtype", LAST)
def test_divergence_has_its_slope_at_the_last_number_below_one(dtype) -> None:
    """d KL/dq = logit q − logit p."""
    q = torch.tensor([LAST[dtype], 0.25], dtype=dtype, requires_grad=True)
    with OffKinks():
        (slope,) = torch.autograd.grad(kl_divergence(Gates(probs=q), Gates(probs=torch.full_like(q, 0.5))), q)
    torch.testing.assert_close(slope, torch.logit(q.detach()))


def test_log_odds_at_both_ends_of_the_type() -> None:
    largest = torch.finfo(torch.float32).max
    logits = torch.tensor([largest, -largest, 0.0], requires_grad=True)
    with OffKinks():
        gates = Gates(logits=logits)
        (slope,) = torch.autograd.grad(gates.log_prob(torch.tensor([0.0, 1.0, 1.0])), logits)
    assert slope.tolist() == [-1.0, 1.0, 0.5]
    infinite = Gates(logits=torch.tensor([torch.inf, -torch.inf]))
    assert infinite.log_prob(torch.tensor([1.0, 0.0])) == 0.0
    assert infinite.log_prob(torch.tensor([0.0, 0.0])) == -torch.inf


@pytest.mark.parametrize("price", [0.5, 3.0, 60.0])
@pytest.mark.parametrize("dtype", LAST)
def test_flattening_falls_from_zero_at_the_slope_of_its_density(price, dtype) -> None:
    """d log p/dπ = −(γ − 1) / (1 + (γ − 1) π), at π = 0 and on both sides of the smallest normal number."""
    tiny = torch.finfo(dtype).tiny
    value = torch.tensor([0.0, tiny / 4, tiny, 0.25], dtype=dtype, requires_grad=True)
    with OffKinks():
        density = FlatteningDistribution(torch.tensor(price, dtype=dtype)).log_prob(value)
        (slope,) = torch.autograd.grad(density.sum(), value)
    excess = math.expm1(price)
    expected = torch.tensor([-excess / (1 + excess * v) for v in value.tolist()], dtype=dtype)
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("price", [1e-3, 0.5, 20.0, 800.0])
def test_mean_of_the_flattening_has_a_slope_at_any_price(price) -> None:
    """1 / log γ − 1 / (γ − 1): −1/price² + γ/(γ − 1)²; at 0 it tends to −1/12."""
    log_gamma = torch.tensor(price, dtype=torch.float64, requires_grad=True)
    with OffKinks():
        (slope,) = torch.autograd.grad(FlatteningDistribution(log_gamma).mean, log_gamma)
    half = price / 2
    expected = (
        -1 / 12 if price < 0.01 else -1 / price**2 + (0.25 / math.sinh(half) ** 2 if half < 300 else 0.0)
    )
    assert slope.item() == pytest.approx(expected, rel=1e-5)


def test_draws_that_rounding_carries_over_the_edge_keep_their_slope(monkeypatch) -> None:
    hyper = FlatteningDistribution(torch.tensor([2.0, 2.0], requires_grad=True))
    monkeypatch.setattr(FlatteningDistribution, "icdf", lambda self, u: 1.0 + 0.0 * u + 1e-6 * self.log_gamma)
    with OffKinks():
        draws = hyper.rsample()
        (slope,) = torch.autograd.grad(draws.sum(), hyper.log_gamma)
    assert draws.tolist() == [1.0, 1.0]
    torch.testing.assert_close(slope, torch.full((2,), 1e-6))


class Unregistered(torch.distributions.Distribution):
    """Of independent gates, in a form that no closed divergence is known for."""

    arg_constraints: ClassVar = {}

    def __init__(self, probs: torch.Tensor) -> None:
        self.gates = Gates(probs=probs)
        super().__init__(event_shape=probs.shape, validate_args=False)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        return self.gates.log_prob(value)


@pytest.mark.parametrize("prob", [1e-9, 1e-6, 0.25, 1 - 1e-6, 1 - 1e-9])
def test_sampled_divergence_is_unbiased_for_gates_that_are_nearly_decided(prob, monkeypatch) -> None:
    """Draws are weighted by hand: the mean of the estimate over both draws of one gate, exactly."""
    monkeypatch.setattr(objective, "SCORE_DRAWS", 2)
    probs = torch.tensor([prob], dtype=torch.float64, requires_grad=True)
    prior = torch.tensor([0.3], dtype=torch.float64)
    total = torch.zeros(1, dtype=torch.float64)
    for pair in ([1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]):
        drawn = torch.tensor(pair, dtype=torch.float64).unsqueeze(1)
        monkeypatch.setattr(Gates, "sample", lambda self, shape, drawn=drawn: drawn)
        (slope,) = torch.autograd.grad(objective.gate_divergence(probs, Unregistered(prior)), probs)
        total += slope * Gates(probs=probs.detach()).log_prob(drawn).sum().exp()
    expected = torch.logit(probs.detach()) - torch.logit(prior)
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("log_odds", [-40.0, -17.4, 0.0, 17.4, 40.0])
def test_no_prior_that_ships_stands_on_a_kink(log_odds) -> None:
    group = Group("fc1", size=4, fan_in=784)
    for prior in (
        priors.BernoulliGates(priors.Flattening(price=2.5)),
        priors.BernoulliGates(priors.Beta(1.5, 0.7)),
        priors.BernoulliGates(priors.Fixed(0.3)),
        priors.BernoulliGates(priors.LayerAdaptive(strength=0.02)),
        priors.SpikeAndSlab(slab_scale=0.5),
    ):
        logits = torch.full((group.size,), log_odds, requires_grad=True)
        with OffKinks():
            (slope,) = torch.autograd.grad(prior.penalty(group, logits.sigmoid()), logits)
        assert slope.isfinite().all()


@pytest.mark.parametrize(
    ("likelihood", "targets"),
    [
        (bp.Categorical(10), torch.tensor([0, 1])),
        (bp.Gaussian(10), torch.zeros(2, 2)),
        (bp.Bernoulli(10), torch.tensor([[0, 1], [1, 0]])),
        (bp.Poisson(10), torch.tensor([[0, 1], [2, 0]])),
    ],
)
def test_no_likelihood_stands_on_a_kink_where_outputs_are_zero_or_equal(likelihood, targets) -> None:
    outputs = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    with OffKinks():
        assert torch.autograd.gradcheck(lambda out: likelihood.double().nll(out, targets), outputs)
