"""Dual ascent: given the evidence it finds the multipliers at which the kept units cost the budget."""

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.structure import ExpectedCost
from bayesprune.svi.dual import LOWEST, Ascent


def ascent_for(*, momentum=0.9, lead=0.0, **shares):
    network = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 10))
    gated = bp.gate(
        network, torch.zeros(1, 20), prior=bp.Budget(**shares), likelihood=bp.Categorical(rows=100)
    )
    return gated, Ascent(gated.prior, momentum, lead), ExpectedCost(gated.network)


def drawn_evidence(gated, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.rand(len(gated.alive), generator=generator, dtype=torch.double)


def settle(gated, ascent, costs, evidence, steps=400):
    """Steps of λ with gates that follow it: each moves a little to where its evidence and price send it."""
    prior, probs = gated.prior, gated.inclusion_prob().detach().double()
    for _ in range(steps):
        ascent.ascend_(costs, evidence, probs, progress=1.0)
        prior.reprice_(costs, probs)
        prior.moves += 1
        probs = probs + 0.05 * ((evidence > prior.prices).double() - probs)
    return probs


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("shares", [{"macs": 0.1}, {"params": 0.3}], ids=str)
def test_gates_that_follow_the_prices_end_at_the_budget(shares, scale):
    """Whatever the scale of the evidence; units are worth a per cent or two, so no closer than that."""
    gated, ascent, costs = ascent_for(**shares)
    probs = settle(gated, ascent, costs, drawn_evidence(gated, 0, scale))
    left = dict(zip(("macs", "params"), gated.prior.shares(costs, probs).tolist(), strict=True))
    for kind, share in shares.items():
        assert left[kind] == pytest.approx(share, rel=0.1)
    assert gated.prior.multipliers["params" if "macs" in shares else "macs"] == 0.0


def test_one_step_is_the_threshold_of_evidence_for_cost():
    """With gates at a vertex of equal costs the best λ is an order statistic of the evidence."""
    network = nn.Sequential(nn.Linear(4, 100), nn.ReLU(), nn.Linear(100, 2))
    gated = bp.gate(
        network, torch.zeros(1, 4), prior=bp.Budget(macs=0.3), likelihood=bp.Categorical(rows=10),
        exclude=("input",),
    )  # fmt: skip
    prior, costs = gated.prior, ExpectedCost(gated.network)
    ascent, evidence = Ascent(prior, momentum=0.0, lead=0.0), drawn_evidence(gated, 1)
    probs = torch.zeros(100).double()
    probs[:30] = 1.0  # at the aim: no feedback
    ascent.ascend_(costs, evidence, probs, progress=1.0)
    each = 1 / 100  # of the dense network's MACs
    best = evidence.sort(descending=True).values[30] / each  # the first unit that has to go
    assert prior.multipliers["macs"] == pytest.approx(float(best), rel=1e-9)


def test_of_two_budgets_the_slack_one_loses_its_price_but_can_come_back():
    gated, ascent, costs = ascent_for(macs=0.1, params=0.9)
    settle(gated, ascent, costs, drawn_evidence(gated, 2))
    prior = gated.prior
    assert prior.multipliers["params"] < 0.01 * prior.multipliers["macs"]
    assert float(prior.log_multipliers[1]) >= float(ascent.first[1]) - LOWEST - 1e-9


def test_units_that_save_nothing_need_no_price():
    gated, ascent, costs = ascent_for(macs=0.1)
    settle(gated, ascent, costs, -drawn_evidence(gated, 3))
    assert float(gated.prior.log_multipliers[0]) == pytest.approx(float(ascent.first[0]) - LOWEST)


def test_the_aim_sinks_geometrically_from_the_start_to_the_budget_and_runs_ahead():
    gated, ascent, _ = ascent_for(params=0.04)
    start = float(gated.prior.start[1])
    for progress, part in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0)):
        aim = ascent.aim(progress)
        assert float(aim[1]) == pytest.approx(start ** (1 - part) * 0.04**part) and bool(aim[0].isnan())
    assert float(Ascent(gated.prior, 0.9, lead=0.25).aim(0.25)[1]) == pytest.approx(float(ascent.aim(0.5)[1]))
    assert float(Ascent(gated.prior, 0.9, lead=0.25).aim(0.9)[1]) == pytest.approx(0.04)
