"""Moves where prices follow from cost: what was paid for is kept, and what is not, charged exactly."""

import itertools
import warnings

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import BudgetWarning, ClockWarning
from bayesprune.priors import CostGates
from bayesprune.svi.moves import decide_
from bayesprune.svi.pricing import Pricing
from bayesprune.svi.schedule import Schedule
from tests.svi.test_moves import ROWS, SCALE, log_joint, rows


def gated_under(prior, x, hidden=False, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 1)] if hidden else [nn.Linear(6, 1, bias=False)]
    return bp.gate(
        nn.Sequential(*layers), x[:1], prior=prior, weights=bp.priors.NormalWeights(SCALE),
        likelihood=bp.Gaussian(rows=ROWS, scale=1.0, learn_scale=False),
    )  # fmt: skip


def terms_of(gated, keep):
    return Pricing.of(gated, Schedule(bp.Recipe(), 100)).terms(keep)


def evidence(x, y, mask):
    return log_joint(x, y, mask, price=0.0)


def fitted(prior, x, y, seed, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClockWarning)
        return bp.fit(
            gated_under(prior, x, seed=seed), (x, y), epochs=25, batch_size=50, seed=seed, progress=False,
            **settings,
        )  # fmt: skip


@pytest.mark.parametrize(
    "start", [(0, 1, 0, 1, 0, 0), (0, 0, 0, 0, 1, 1), (1, 0, 1, 0, 0, 0), (1, 1, 0, 0, 0, 0)]
)
def test_under_a_budget_the_best_of_all_masks_that_cost_as_much_is_found(start):
    x, y = rows(0, correlation=0.5)
    gated = gated_under(bp.Budget(params=0.34), x)
    keep = torch.tensor(start, dtype=torch.bool)
    mask, found = decide_(gated, (x, y), bp.Moves(), keep, 1, terms_of(gated, keep))
    masks = [m for m in itertools.product((0, 1), repeat=6) if sum(m) == 2]
    best = max(masks, key=lambda m: evidence(x, y, m))
    assert tuple(mask.int().tolist()) == best and found.complete
    assert all(move.out is not None and move.into is not None for move in found.moves)
    gain = evidence(x, y, best) - evidence(x, y, start)
    assert sum(move.nats for move in found.moves) == pytest.approx(gain, abs=1e-3)


def test_units_come_back_where_they_fit_and_none_goes_that_was_paid_for():
    x, y = rows(0, correlation=0.0)
    gated = gated_under(bp.Budget(params=0.51), x)
    keep = torch.tensor([1, 0, 0, 0, 0, 0], dtype=torch.bool)
    mask, found = decide_(gated, (x, y), bp.Moves(), keep, 1, terms_of(gated, keep))
    assert int(mask.sum()) <= 3 and bool(mask[2])
    assert found.moves[0].into == 2 and found.moves[0].out is None
    noise = torch.tensor([1, 0, 1, 1, 0, 0], dtype=torch.bool)  # the fourth gains nothing, and may stay
    allows = terms_of(gated, noise).allows
    assert allows(noise) and not allows(keep)  # 2 % below its budget a network may end, and no further
    assert not allows(torch.ones(6, dtype=torch.bool))


def test_a_fit_under_a_budget_gets_the_input_back_that_it_had_lost():
    """Without moves seed 0 keeps an input of no use in the place of the third."""
    x, y = rows(0, correlation=0.0)
    found = {}
    for moves in (None, bp.Moves()):
        result = fitted(bp.Budget(params=0.34), x, y, 0, recipe=bp.Recipe(moves=moves))
        found[moves] = result
        assert int(result.gated.alive.sum()) == 2
    without, moved = found.values()
    assert (
        without.gated.alive.tolist() != moved.gated.alive.tolist() == [True, False, True, False, False, False]
    )
    assert without.decision.why_none == "the recipe has none"
    assert moved.decision.moves and not moved.decision.why_none
    assert moved.gated.network.parameter_count() / moved.gated.dense_parameters <= 0.34


def test_a_price_charges_what_the_network_costs_that_a_mask_leaves():
    x, y = rows(0, correlation=0.0)
    gated = gated_under(bp.Price.from_cost(nats=60.0, compute=0.0), x)
    assert isinstance(gated.prior, CostGates)
    keep = torch.tensor([1, 0, 0, 1, 0, 0], dtype=torch.bool)
    mask, found = decide_(gated, (x, y), bp.Moves(), keep, 1, terms_of(gated, keep))
    best = max(itertools.product((0, 1), repeat=6), key=lambda m: evidence(x, y, m) - 10 * sum(m))
    assert tuple(mask.int().tolist()) == best
    gain = evidence(x, y, best) - 10 * sum(best) - evidence(x, y, keep.int().tolist()) + 20
    assert sum(move.nats for move in found.moves) == pytest.approx(gain, abs=1e-3)


def test_sizes_that_a_budget_holds_are_held():
    x, _ = rows(0, correlation=0.0)
    gated = gated_under(bp.Budget(params=0.8, multiple_of=2), x, hidden=True)
    parts = gated.slices()
    keep = torch.ones(9, dtype=torch.bool)
    keep[[parts["input"].start, parts["input"].start + 1]] = False
    terms = terms_of(gated, keep)
    one_more, exchanged = keep.clone(), keep.clone()
    one_more[parts["input"].start] = True
    exchanged[[parts["input"].start, parts["input"].start + 2]] = torch.tensor([True, False])
    assert terms.allows(keep) and terms.allows(exchanged) and not terms.allows(one_more)
    assert terms.exchange and terms.log_prior(keep) == terms.log_prior(one_more)


def test_under_measured_limits_groups_keep_their_sizes():
    x, _ = rows(0, correlation=0.0)
    gated = gated_under(bp.Budget(latency_ms=1e3, batch=8), x, hidden=True)
    keep = torch.ones(9, dtype=torch.bool)
    keep[0] = False
    terms = terms_of(gated, keep)
    exchanged, fewer = keep.clone(), keep.clone()
    exchanged[:2] = torch.tensor([True, False])
    fewer[1] = False
    assert terms.allows(exchanged) and not terms.allows(fewer)


def test_dead_units_wait_and_no_warning_says_that_the_budget_was_missed():
    x, y = rows(4, correlation=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", BudgetWarning)
        result = fitted(bp.Budget(params=0.34), x, y, 4)
    assert result.at_decision.alive.all() and result.decision.units == 6
