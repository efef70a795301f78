"""A prior without its hyper-sites: every mask at minus its penalty; and the integrated flattening prior."""

import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.integrate import quad
from scipy.special import betaln

from bayesprune import priors
from bayesprune.errors import PriorError
from bayesprune.structure.groups import Group

GROUP = Group("fc", size=3)
MASKS = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))


def test_a_price_is_independent_gates_at_its_log_odds():
    gates = priors.Collapsed(priors.BernoulliGates(priors.Flattening(20.0)))(GROUP)
    expected = dist.Bernoulli(logits=torch.full((3,), -20.0)).to_event(1).log_prob(MASKS)
    torch.testing.assert_close(gates.log_prob(MASKS), expected)


def test_a_shared_rate_is_integrated_out():
    gates = priors.Collapsed(priors.BernoulliGates(priors.Beta(1.5, 0.7)))(GROUP)
    kept = MASKS.sum(-1).numpy()
    expected = betaln(1.5 + kept, 0.7 + 3 - kept) - betaln(1.5, 0.7)
    np.testing.assert_allclose(gates.log_prob(MASKS).numpy(), expected, rtol=1e-5)


def test_its_draws_and_its_support_are_masks():
    gates = priors.Collapsed(priors.BernoulliGates(priors.Fixed(0.3)))(GROUP)
    every = gates.enumerate_support()
    assert every.shape == (8, 3) and {tuple(z) for z in every.tolist()} == {tuple(z) for z in MASKS.tolist()}
    assert gates.log_prob(every).exp().sum().item() == pytest.approx(1.0)
    torch.manual_seed(0)
    mean = gates.sample(torch.Size([4000])).mean().item()
    assert abs(mean - 0.3) < 4.42 * (0.21 / 12000) ** 0.5  # a false alarm in 1e-5, seed fixed


def test_a_program_stays_one_and_large_groups_are_refused():
    def program(group):
        return priors.Gates(probs=pyro.sample("rate", dist.Beta(1.0, 1.0)).expand(group.size))

    assert isinstance(priors.Collapsed(program)(GROUP), priors.Gates)
    with pytest.raises(PriorError, match="enumerate at most 12"):
        priors.Collapsed(priors.BernoulliGates(priors.Fixed(0.3)))(Group("fc", size=13))


@pytest.mark.parametrize("price, charged", [(10.0, 2.20), (20.0, 2.94), (60.0, 4.08)])
def test_the_integrated_prior_charges_what_quadrature_says(price, charged):
    hyper = priors.IntegratedFlattening(price)

    def density(u):  # π = e^{-u}: most of its mass lies near zero
        pi = math.exp(-u)
        return pi * math.exp(price) / price / (1 + math.expm1(price) * pi)

    scale = -math.expm1(-price)  # (γ − 1)/γ
    mean = scale * quad(lambda u: math.exp(-u) * density(u), 0, 2 * price, limit=200)[0]
    assert hyper.log_rate(GROUP) == pytest.approx(math.log(mean), abs=1e-6)
    assert hyper.price(GROUP) == pytest.approx(charged, abs=0.005)
    theta = torch.tensor([0.2, 0.5, 0.9])
    gates = torch.distributions.Bernoulli(mean)
    expected = torch.distributions.kl_divergence(torch.distributions.Bernoulli(theta), gates).sum().item()
    assert hyper.penalty(GROUP, theta).item() == pytest.approx(expected, rel=1e-5)


def test_its_table_and_its_messages_are_those_of_prices():
    hyper = priors.IntegratedFlattening({"fc": 20.0, "*": 10.0})
    assert hyper.price(GROUP) > hyper.price(Group("conv", size=2))
    assert next(iter(hyper.tables()))[0] == "the table of prices"
    with pytest.raises(PriorError, match="A price is a positive finite number"):
        priors.IntegratedFlattening(0.0)
