"""Budget and Price.from_cost: a price is λ times what a unit adds; the prior is an ordinary Pyro program."""

import copy
import math
import re

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import PriorError
from bayesprune.priors.budget import check_feasible
from bayesprune.priors.cost_gates import LEAST_PRICE
from bayesprune.priors.cost_price import CostPrice
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


def test_all_that_is_no_share_is_named():
    message = (
        "A Budget is a share of the dense network's cost, above 0 and at most 1, and got macs=0, params=2: "
        "write for example Budget(macs=0.1), Budget(params=0.05), or Budget(latency_ms=2.0, batch=64)."
    )
    with pytest.raises(PriorError, match=f"^{re.escape(message)}$"):
        bp.Budget(macs=0, params=2)


@pytest.mark.parametrize("share", [1, 1.0])
def test_the_whole_cost_is_a_share_too(share):
    assert gated_for(bp.Budget(macs=share)).prior.multipliers["macs"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    "prior, call",
    [(bp.Budget(macs=0.5), "bp.Budget(...)"), (bp.Price.from_cost(nats=10.0), "bp.Price.from_cost(...)")],
)
def test_alone_with_a_group_it_says_that_it_has_to_see_the_network(prior, call):
    message = (
        f"{prior!r} was asked for the gates of group 'fc1' alone, and has to see the whole network: pass it "
        f"as it is, bp.gate(network, example, prior={call}, likelihood=...)."
    )
    with pytest.raises(PriorError, match=f"^{re.escape(message)}$"):
        prior(Group("fc1", 3))


def test_a_budget_begins_with_a_hundredth_of_a_nat_a_row_for_what_it_leaves():
    one, both = gated_for(bp.Budget(macs=0.2)).prior, gated_for(bp.Budget(macs=0.8, params=0.25)).prior
    assert one.multipliers == pytest.approx({"macs": 10.0, "params": 0.0})
    assert one.budget[0].item() == 0.2 and one.budget[1].isnan()
    assert both.multipliers == pytest.approx({"macs": 2.5, "params": 8.0})
    assert both.budget.tolist() == [0.8, 0.25]


@pytest.mark.parametrize(
    "least, units, macs, params", [(1, "one unit", "0.134", "0.0277"), (2, "2 units", "0.269", "0.0554")]
)
def test_the_message_names_the_least_shares_and_the_groups(least, units, macs, params):
    """Of 1104 MACs and 578 parameters: one unit each 9 · 16 + 1 + 2 and 10 + 2 + 4, two 288 + 8 and 32."""
    priced = gated_for(bp.Budget(macs=1.0)).prior
    message = (
        f"Budget macs=0.001 (at least {macs}), params=0.01 (at least {params}) cannot be met: with {units} "
        "left in each of the groups '0', '2', '3' this network still costs the share in brackets. Ask for no "
        "less, or take fewer groups out with exclude=."
    )
    network = gated_for(bp.Budget(macs=1.0)).network
    with pytest.raises(PriorError, match=f"^{re.escape(message)}$"):
        check_feasible(network, priced.dense, torch.tensor([0.001, 0.01]).double(), least)


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


def test_its_sites_are_scored_in_the_networks_precision():
    gated = gated_for(bp.Budget(macs=0.5))
    trace = poutine.trace(gated.prior).get_trace(gated.groups[0])
    assert trace.nodes["pi/0"]["value"].dtype == trace.log_prob_sum().dtype == torch.float


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
    assert bound.penalty(gated.groups[0], torch.zeros(4)).dtype == torch.float


def test_sections_have_their_own_factor():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 8)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            x = self.stem(x)
            return self.head(x + self.down(self.up(x).relu()))

    plain = bp.Price.from_cost(nats=100.0)
    gated = bp.gate(Residual(), torch.zeros(1, 4), prior=plain, likelihood=bp.Categorical(rows=20))
    probs = gated.by_group(gated.inclusion_prob().detach())
    dear = bp.Price.from_cost(nats=100.0, layers=3.0).bind(gated.network, probs, 20)
    expected = {g.name: gated.prior.price(g) * (3 if g.name == "layers" else 1) for g in gated.groups}
    assert {g.name: dear.price(g) for g in gated.groups} == pytest.approx(expected)
    assert expected.keys() == {"stem", "up", "layers"}
    budget = bp.Budget(macs=0.5).bind(gated.network, probs, 2000)  # 40 nats for all MACs
    alike = bp.Price.from_cost(nats=40.0, compute=1.0).bind(gated.network, probs, 2000)
    torch.testing.assert_close(budget.prices, alike.prices)


def test_from_cost_asks_alike_for_both_and_for_sections_like_units():
    assert bp.Price.from_cost(nats=3.0) == CostPrice(nats=3.0, compute=0.5, layers=1.0)
    assert bp.Price.from_cost(nats=3.0, compute=0.25, layers=2.0) == CostPrice(3.0, 0.25, 2.0)
    multipliers = gated_for(bp.Price.from_cost(nats=10.0, compute=0.3)).prior.multipliers
    assert multipliers == pytest.approx({"macs": 3.0, "params": 7.0}, rel=1e-12)


def test_evidence_is_what_no_price_asked_for():
    """Velocity smoothed as the prices are: m ← μ m + (1 − μ) g, and 1 − μⁿ of it after n steps."""
    prior = gated_for(bp.Price.from_cost(nats=100.0)).prior
    saved, velocity, momentum = torch.linspace(-3.0, 5.0, len(prior.prices)).double(), 0.0, 0.8
    assert prior.evidence(torch.zeros(len(saved)), momentum).tolist() == [0.0] * len(saved)
    assert torch.equal(prior.evidence(-saved, momentum), saved)  # nothing was smoothed yet: as it is
    for factor in (1.0, 0.5, 3.0):
        prior.prices.mul_(factor)
        velocity = momentum * velocity + (1 - momentum) * (prior.prices - saved)
        prior.count_(momentum)
        torch.testing.assert_close(prior.evidence(velocity, momentum), saved)
    assert int(prior.moves) == 3 and prior.evidence(velocity.float(), momentum).dtype == torch.double


def test_it_prints_budget_and_prices():
    budget, both = gated_for(bp.Budget(macs=0.5)), gated_for(bp.Budget(macs=0.8, params=0.25))
    assert repr(budget.prior) == "CostGates(budget: macs=0.5; nats per share: macs=4)"
    assert repr(both.prior) == "CostGates(budget: macs=0.8, params=0.25; nats per share: macs=2.5, params=8)"
    priced = gated_for(bp.Price.from_cost(nats=10.0, compute=0.3))
    assert repr(priced.prior) == "CostGates(nats per share: macs=3, params=7)"


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
        {"nats": 1.0, "compute": True},
        {"nats": 1.0, "compute": "0.5"},
        {"nats": 1.0, "layers": 0.0},
        {"nats": 1.0, "layers": math.inf},
    ],
)
def test_from_cost_refuses_what_is_out_of_range(settings):
    nats, compute, layers = (
        ({"compute": 0.5, "layers": 1.0} | settings)[k] for k in ("nats", "compute", "layers")
    )
    message = (
        f"Price.from_cost(nats={nats!r}, compute={compute!r}, layers={layers!r}): nats and layers must be "
        "positive finite numbers, and compute lie between 0 (parameters alone) and 1 (MACs alone)."
    )
    with pytest.raises(PriorError, match=f"^{re.escape(message)}$"):
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
    state = gated.prior.state_dict()
    assert state.keys() == {"log_multipliers", "prices", "dense", "start", "smoothed", "moves", "budget"}
    expected = gated.prior.shares(ExpectedCost(gated.network), gated.inclusion_prob().detach().double())
    torch.testing.assert_close(state["start"], expected)
    assert (
        state["moves"].dtype == torch.long
        and "budget" not in gated_for(PRIORS["from cost"]).prior.state_dict()
    )


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
