"""Budget and Price.from_cost: a price is λ times what a unit adds; the prior is an ordinary Pyro program."""

import copy
import math

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import PriorError
from bayesprune.priors.cost_gates import LEAST_PRICE
from bayesprune.structure import ExpectedCost, Group, count
from bayesprune.svi.objective import exact_negative_elbo
from tests.reference import negative_elbo_by_pyro
from tests.svi.small import small_batch, small_gated


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2)
    )


def gated_for(prior, **settings):
    return bp.gate(
        network(), torch.zeros(1, 1, 6, 6), prior=prior, likelihood=bp.Categorical(rows=200), **settings
    )


@pytest.mark.parametrize(
    "shares, message",
    [
        ({}, "got none"),
        ({"macs": 0}, "macs=0"),
        ({"macs": -0.1}, "macs=-0.1"),
        ({"params": 1.5}, "params=1.5"),
        ({"params": math.nan}, "params=nan"),
        ({"macs": "0.1"}, "macs='0.1'"),
        ({"macs": True}, "macs=True"),
        ({"macs": 0.5, "params": 2}, "params=2"),
    ],
)
def test_shares_that_are_none(shares, message):
    with pytest.raises(PriorError, match=message):
        bp.Budget(**shares)


@pytest.mark.parametrize("prior", [bp.Budget(macs=0.5), bp.Price.from_cost(nats=10.0)])
def test_alone_with_a_group_it_says_that_it_has_to_see_the_network(prior):
    with pytest.raises(PriorError, match=r"'fc1' alone.*see the whole network.*bp.gate"):
        prior(Group("fc1", 3))


def test_a_budget_that_cannot_be_met_names_the_least_that_can():
    with pytest.raises(PriorError, match=r"macs=0.001 \(at least (0\.\d+)\).*'0', '2', '3'") as caught:
        gated_for(bp.Budget(macs=0.001))
    least = float(str(caught.value).split("at least ")[1].split(")")[0])
    gated_for(bp.Budget(macs=least))  # what the message names is possible
    with pytest.raises(PriorError, match="at least"):
        gated_for(bp.Budget(macs=0.99 * least))
    dense = count(network(), torch.zeros(1, 1, 6, 6))
    smallest = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Linear(1, 1), nn.Linear(1, 2))
    macs = 9 * 16 + 1 + 2
    assert macs / dense.macs <= least <= 1.01 * macs / dense.macs
    parameters = sum(p.numel() for p in smallest.parameters())
    with pytest.raises(PriorError, match=r"macs=.*params="):
        gated_for(bp.Budget(macs=0.001, params=0.9 * parameters / dense.parameters))
    gated_for(bp.Budget(params=parameters / dense.parameters))


def test_excluded_groups_raise_the_least():
    gated_for(bp.Budget(params=0.1))
    with pytest.raises(PriorError, match="at least"):
        gated_for(bp.Budget(params=0.1), exclude=("0", "2"))


PRIORS = {
    "budget of MACs": bp.Budget(macs=0.5),
    "budget of both": bp.Budget(macs=0.9, params=0.95),
    "from cost": bp.Price.from_cost(nats=30.0, compute=0.3),
}


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
@pytest.mark.parametrize("removed", [False, True], ids=["whole", "after a removal"])
@pytest.mark.usefixtures("double_precision")
def test_its_elbo_is_that_of_pyros_traces(prior, removed):
    gated = small_gated(prior, removed=removed)
    x, y = small_batch()
    ours, theirs = exact_negative_elbo(gated, x, y), negative_elbo_by_pyro(gated, x, y)
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)
    slopes = [torch.autograd.grad(value, gated.log_odds)[0] for value in (ours, theirs)]
    torch.testing.assert_close(slopes[0][gated.alive], slopes[1][gated.alive], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
def test_pyros_own_svi_runs_on_it(prior):
    gated = gated_for(prior)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x, y = torch.randn(8, 1, 6, 6), torch.randint(2, (8,))
        svi = SVI(gated.model, gated.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        assert all(math.isfinite(svi.step(x, y)) for _ in range(3))
    pyro.clear_param_store()


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
def test_a_price_is_lambda_times_what_the_unit_adds(prior):
    gated = gated_for(prior, initial_inclusion={"0": 0.8, "*": 0.6})
    bound, costs = gated.prior, ExpectedCost(gated.network)
    theta = gated.inclusion_prob().detach().double()
    lambdas = torch.tensor(list(bound.multipliers.values()))
    for unit in (0, 5, 70):
        with_it, without = theta.clone(), theta.clone()
        with_it[unit], without[unit] = 1.0, 0.0
        adds = bound.shares(costs, with_it) - bound.shares(costs, without)
        # the gates' log-odds are in float32
        assert float(bound.prices[unit]) == pytest.approx(float(lambdas.double() @ adds), rel=1e-5)
    nats = sum(bound.penalty(g, p) for g, p in zip(gated.groups, gated.by_group(theta).values(), strict=True))
    nothing = sum(bound.penalty(g, torch.zeros(g.size).double()) for g in gated.groups)
    assert float(nats - nothing) == pytest.approx(float(theta @ bound.prices), rel=1e-9)


def test_prices_follow_the_network_as_it_shrinks():
    gated = gated_for(bp.Price.from_cost(nats=100.0, compute=1.0))
    before = gated.prior.prices.clone()
    dead = torch.zeros_like(gated.alive)
    dead[gated.slices()["3"].start :][:4] = True  # half of the hidden units
    gated.remove_(dead)
    gated.prior.reprice_(ExpectedCost(gated.network), gated.inclusion_prob().detach().double())
    features = gated.slices()["2"]
    torch.testing.assert_close(gated.prior.prices[features], before[features] / 2)
    assert bool((gated.prior.prices[dead] == LEAST_PRICE).all())


def test_compute_against_parameters_moves_the_prices_from_one_group_to_another():
    macs = gated_for(bp.Price.from_cost(nats=100.0, compute=1.0)).prior
    params = gated_for(bp.Price.from_cost(nats=100.0, compute=0.0)).prior
    half = gated_for(bp.Price.from_cost(nats=100.0, compute=0.5)).prior
    torch.testing.assert_close(half.prices, (macs.prices + params.prices) / 2)
    filters, hidden = Group("0", 4), Group("3", 8)
    assert macs.price(filters) / macs.price(hidden) > 1.5 * params.price(filters) / params.price(hidden)


@pytest.mark.parametrize(
    "settings",
    [
        {"nats": 0},
        {"nats": -1.0},
        {"nats": math.inf},
        {"nats": 1.0, "compute": 1.1},
        {"nats": 1.0, "compute": -1},
    ],
)
def test_from_cost_refuses_what_is_out_of_range(settings):
    with pytest.raises(PriorError, match=r"nats=.*compute="):
        bp.Price.from_cost(**settings)


def test_its_state_travels_with_the_model():
    gated = gated_for(bp.Budget(macs=0.3))
    gated.prior.log_multipliers += 1.0
    other = gated_for(bp.Budget(macs=0.3))
    other.load_state_dict(gated.state_dict())
    assert other.prior.multipliers == gated.prior.multipliers
    twin = copy.deepcopy(gated)
    twin.prior.log_multipliers += 1.0
    assert twin.prior.multipliers != gated.prior.multipliers
    assert not list(gated.prior.parameters())


def test_with_prior_puts_a_budget_on_a_model_that_was_built_with_prices():
    priced = gated_for(priors.BernoulliGates(priors.Flattening(3.0)), unit_noise={"2": 0.3})
    budgeted = priced.with_prior(bp.Budget(macs=0.3))
    assert isinstance(budgeted.prior, priors.CostGates)
    assert isinstance(priced.prior, priors.BernoulliGates)
    assert budgeted.unit_noise == priced.unit_noise and torch.equal(budgeted.log_odds, priced.log_odds)
    budgeted.network.get_submodule("0").weight.data.zero_()
    assert bool(priced.network.get_submodule("0").weight.any())
    priced.remove_(torch.arange(len(priced.alive)) == 0)  # a filter, and with it its 16 features
    with pytest.raises(PriorError, match="17 units were removed"):
        priced.with_prior(bp.Budget(macs=0.3))
