"""Fits under a budget: it is met, by removal for real, from above; and a stopped fit goes on bit-equal."""

import copy

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import BudgetWarning, CheckpointError, PriorError
from bayesprune.programs import load_model
from bayesprune.svi.fitter import WITHIN
from tests.svi.fits import FAST, ROWS, data, fit, gated_for, network, same

BUDGETS = [{"macs": 0.5}, {"params": 0.3}, {"macs": 0.6, "params": 0.4}]


def budgeted(net=None, **shares):
    likelihood = bp.Categorical(rows=ROWS)
    return bp.gate(net or network(), data()[0][:1], prior=bp.Budget(**shares), likelihood=likelihood)


def used(result, dense, shares, example):
    """Cost of the plain network over its budget; the larger where there are two."""
    small, whole = bp.count(bp.prune(result), example), bp.count(dense, example)
    left = {"macs": small.macs / whole.macs, "params": small.parameters / whole.parameters}
    return max(left[kind] / share for kind, share in shares.items())


@pytest.mark.parametrize("shares", BUDGETS, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.filterwarnings("ignore::bayesprune.errors.BudgetWarning")  # 28 units are coarse
def test_the_budget_is_met_and_used(shares, seed):
    result = fit(budgeted(**shares), seed=seed)
    assert 0.9 < used(result, network(), shares, data()[0]) <= 1
    assert result.undecided == 0 and result.history[-1].prior_weight == 1.0
    x = data()[0]
    ones = {
        name: (p > 0.5).float() for name, p in result.gated.by_group(result.gated.inclusion_prob()).items()
    }
    torch.testing.assert_close(bp.prune(result)(x), result.gated.outputs(x, ones), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::bayesprune.errors.BudgetWarning")
def test_what_lives_stays_above_the_budget_until_gates_are_decided(monkeypatch):
    seen, remove_ = [], bp.GatedModel.remove_

    def watched(self, dead, optimiser=None):
        remove_(self, dead, optimiser)
        seen.append(self.network.macs() / self.dense_macs)

    monkeypatch.setattr(bp.GatedModel, "remove_", watched)
    fit(budgeted(macs=0.45), recipe=bp.Recipe(**{**FAST, "decide": 1.0}), epochs=8, seed=3)
    assert len(seen) >= 3 and all(share >= 0.45 for share in seen[:-1]) and seen[-1] <= 0.45


def test_a_warning_where_units_are_too_large_for_the_window():
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 2), nn.ReLU(), nn.Linear(2, 2))  # one unit, or two
    likelihood = bp.Categorical(rows=ROWS)
    gated = bp.gate(net, data()[0][:1], prior=bp.Budget(macs=0.8), likelihood=likelihood, exclude=("input",))
    with pytest.warns(BudgetWarning, match=r"Budget macs=0.8: the network ends at 62.5 % of it.*exclude="):
        result = fit(gated)
    assert result.architecture == [1]


def test_rounded_tells_how_many_gates_the_budget_moved():
    """Hardly any time to select: nearly everything is decided by the rounding."""
    recipe = bp.Recipe(**{**FAST, "warmup": 0.1, "ramp": 0.1, "decide": 0.21})
    result = fit(budgeted(params=0.4), recipe=recipe, epochs=5)
    assert result.rounded >= 28 - sum(result.architecture)


@pytest.mark.filterwarnings("ignore::bayesprune.errors.BudgetWarning")
def test_multipliers_are_found_and_prices_follow():
    start = budgeted(macs=0.4)
    before = start.prior.multipliers["macs"]
    result = fit(start)
    assert result.gated.prior.multipliers["macs"] != before
    assert result.gated.prior.multipliers["params"] == 0.0
    assert start.prior.multipliers["macs"] == before  # what was handed in is left alone


def test_a_price_from_cost_is_no_budget():
    gated = bp.gate(
        network(), data()[0][:1], prior=bp.Price.from_cost(nats=150.0), likelihood=bp.Categorical(rows=ROWS)
    )
    result = fit(gated, epochs=10)
    assert result.gated.prior.multipliers == gated.prior.multipliers
    assert gated.prior.multipliers == pytest.approx({"macs": 75.0, "params": 75.0})
    assert sum(result.architecture) < 20
    assert result.history[0].prior_weight < 1.0  # these prices ramp up, as given ones do
    cheap = copy.deepcopy(gated)
    cheap.prior.log_multipliers -= 5.0
    assert sum(fit(cheap, epochs=10).architecture) > sum(result.architecture)


@pytest.mark.parametrize("stop", [1, 3, 5], ids=["warm", "before the decision", "after it"])
@pytest.mark.filterwarnings("ignore::bayesprune.errors.BudgetWarning")
def test_resumed_budget_is_bit_equal(stop, tmp_path):
    class Stop(Exception):
        pass

    def interrupt(epoch):
        if epoch.epoch == stop:
            raise Stop

    whole = fit(budgeted(macs=0.5, params=0.5))
    with pytest.raises(Stop):
        fit(budgeted(macs=0.5, params=0.5), checkpoint=tmp_path, on_epoch=interrupt)
    torch.manual_seed(99)
    resumed = fit(budgeted(macs=0.5, params=0.5), checkpoint=tmp_path, resume=True)
    same(whole, resumed)
    assert whole.rounded == resumed.rounded
    with pytest.raises(CheckpointError, match=r"other settings: .*budget"):
        fit(budgeted(macs=0.5, params=0.55), checkpoint=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="other settings"):
        fit(gated_for(), checkpoint=tmp_path, resume=True)


def test_a_budget_below_what_the_guard_leaves_is_refused_by_the_fit():
    gated = budgeted(macs=0.3)
    with pytest.raises(PriorError, match=r"macs=0.3 \(at least 0\.\d+\).*4 units left in each"):
        fit(gated, shrink=bp.Shrink(every=3, least=4))


@pytest.mark.parametrize(
    "program, shares, most_error",
    [
        pytest.param("lenet5", {"macs": 0.1}, 8.0, marks=pytest.mark.nightly),
        ("lenet_300_100", {"params": 0.05}, 8.0),
    ],
)
def test_programs_on_digits_reach_their_budget(program, shares, most_error):
    """Seeds are fixed. A selection that took the wrong units ended at 65 % error, and at 77 %."""
    model, digits = load_model(program), bp.data.load("digits")
    torch.manual_seed(0)
    gated = model.model(digits.train, digits.classes, None).with_prior(bp.Budget(**shares))
    result = bp.fit(
        gated,
        (digits.train.x, digits.train.y),
        epochs=25,
        batch_size=32,
        recipe=model.recipe,
        progress=False,
    )
    small, example = bp.prune(result), digits.test.x[:1]
    cost = bp.count(small, example)
    left = {"macs": cost.macs / gated.dense_macs, "params": cost.parameters / gated.dense_parameters}
    for kind, share in shares.items():
        assert 1 - WITHIN <= left[kind] / share <= 1
    error = bp.evaluate(small, (digits.test.x, digits.test.y), gated.likelihood).score
    assert error < most_error
