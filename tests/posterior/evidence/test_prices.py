"""What a unit costs: against the prior's own closed forms, Pyro's log-densities and finite differences."""

import math

import numpy as np
import pytest
import torch
from pyro import poutine
from torch import nn

import bayesprune as bp
from bayesprune.posterior.evidence.prices import unit_prices
from bayesprune.priors import BernoulliGates, Flattening, NormalWeights, SpikeAndSlab
from bayesprune.svi.objective import gate_nats, weight_nats
from tests.svi.small import EXACT, OwnGuide, coupled, shared_rate, small_gated

pytestmark = pytest.mark.usefixtures("double_precision")
SIGMAS = 4.5


def prices(prior, **settings):
    gated = small_gated(prior, **settings)
    return unit_prices(gated, gated.inclusion_prob().detach()), gated


def test_known_prices():
    """Two inputs and three hidden units under each prior."""
    found, _ = prices(EXACT["flattening"])
    torch.testing.assert_close(found, torch.full((5,), 2.5))
    found, _ = prices(EXACT["flattening, by group"])
    torch.testing.assert_close(found, torch.tensor([0.3, 0.3, 9.0, 9.0, 9.0]))
    found, _ = prices(EXACT["fixed"])
    torch.testing.assert_close(found, torch.full((5,), math.log(0.7 / 0.3)))
    found, _ = prices(EXACT["own prior without hyper-sites"])
    torch.testing.assert_close(found, torch.full((5,), math.log(0.8 / 0.2)))
    found, _ = prices(EXACT["learned"])
    torch.testing.assert_close(found, torch.full((5,), 0.5))


def test_a_shared_rate_makes_units_cheaper_the_more_others_are_on():
    found, gated = prices(EXACT["beta"])
    theta = gated.inclusion_prob().detach()[2:]
    others = theta.sum() - theta
    torch.testing.assert_close(found[2:], torch.log(0.7 + 2 - others) - torch.log(1.5 + others))


@pytest.mark.parametrize("name", sorted(EXACT))
def test_a_price_is_the_slope_of_the_objective_without_its_entropy(name):
    """Where the prior side of the ELBO is −H(θ) + something, or linear: its difference between the ends."""
    found, gated = prices(EXACT[name])
    theta = gated.inclusion_prob().detach()
    for unit in range(5):
        ends = []
        for value in (1.0, 0.0):
            probs = theta.clone()
            probs[unit] = value
            ends.append(float(gate_nats(gated, probs).detach()))
        assert float(found[unit]) == pytest.approx(ends[0] - ends[1], rel=1e-9, abs=1e-12)


def test_a_budget_has_the_prices_of_its_dual():
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    gated = bp.gate(network, torch.zeros(1, 4), prior=bp.Budget(macs=0.5), likelihood=bp.Categorical(rows=30))
    gated.prior.log_multipliers += 3.0
    gated.prior.reprice_(bp.structure.ExpectedCost(gated.network), gated.inclusion_prob().detach())
    rows = torch.randn(30, 4), torch.randint(3, (30,))
    table = bp.evidence(gated, rows, progress=False)
    np.testing.assert_allclose(table.price, gated.prior.prices.numpy(), rtol=1e-9)
    assert len(set(table.price.round(6))) == 2 and table.price.min() > 0.01


@pytest.mark.parametrize("prior", [shared_rate, OwnGuide()], ids=["default guide", "own guide"])
def test_a_program_with_hyper_sites_is_averaged_over_its_guide(prior):
    """Mean of −logit(rate) under q(rate): by the guide's own draws, at 4.5 standard errors of both."""
    torch.manual_seed(0)
    found, gated = prices(prior)
    theta = gated.inclusion_prob().detach()[2:]

    def rate():
        with torch.no_grad():
            return poutine.trace(gated.hyper_guide).get_trace(gated.groups[1], theta).nodes["rate/0"]["value"]

    drawn = [-torch.logit(rate()) for _ in range(2000)]
    drawn = torch.stack(drawn)
    assert bool((found[2:] == found[2]).all())
    error = drawn.std() * (1 / 2000 + 1 / 256) ** 0.5
    assert abs(found[2] - drawn.mean()) < SIGMAS * error


def test_a_prior_of_dependent_gates_is_averaged_over_the_others():
    """All or nothing, mixed with fair coins: the price of one unit given two others, by enumeration."""
    torch.manual_seed(0)
    found, gated = prices(coupled)
    theta, prior = gated.inclusion_prob().detach()[2:], coupled(gated.groups[1])
    total, square = 0.0, 0.0
    for a in (0.0, 1.0):
        for b in (0.0, 1.0):
            share = torch.where(torch.tensor([a, b]) > 0, theta[1:], 1 - theta[1:]).prod()
            ends = prior.log_prob(torch.tensor([[0.0, a, b], [1.0, a, b]]))
            total += share * (ends[0] - ends[1])
            square += share * (ends[0] - ends[1]) ** 2
    error = ((square - total**2) / 256).sqrt()
    assert error > 0 and abs(found[2] - total) < SIGMAS * error


def test_a_spike_and_slab_unit_pays_for_its_own_weights():
    weights = NormalWeights(scale=0.7, posterior="normal", masked=True, initial_scale=0.1)
    found, gated = prices(SpikeAndSlab(slab_scale=0.7), weights=weights)
    theta, alone = gated.inclusion_prob().detach(), prices(SpikeAndSlab(slab_scale=0.7))[0]
    for unit in range(2, 5):
        ends = []
        for value in (1.0, 0.0):
            probs = theta.clone()
            probs[unit] = value
            ends.append(float((gate_nats(gated, probs) + weight_nats(gated, probs)).detach()))
        assert float(found[unit]) == pytest.approx(ends[0] - ends[1], rel=1e-9)
        assert found[unit] > alone[unit] + 1.0


def test_large_prices_are_exact_in_single_precision():
    """Differences of penalties are taken in double precision: 1,000 nats among 800 units."""
    gated = bp.gate(
        nn.Sequential(nn.Linear(800, 2)).float(), torch.zeros(1, 800, dtype=torch.float),
        prior=BernoulliGates(Flattening(1000.0)), likelihood=bp.Categorical(rows=10),
    )  # fmt: skip
    found = unit_prices(gated, gated.inclusion_prob().detach())
    torch.testing.assert_close(found, torch.full((800,), 1000.0), rtol=1e-8, atol=0.0)
