"""Whether the clock decides a mask: what a fit says before it starts and after it ends, and when."""

import math
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import ClockWarning
from bayesprune.svi import FitResult, GateSteps, Recipe
from bayesprune.svi.clock import warn_after, warn_before, without_evidence
from bayesprune.svi.schedule import Schedule
from bayesprune.svi.settings import Shrink

UNIFORM = dict(warmup=0.0, ramp=0.0, decide=0.5)


def pace(learning_rate=0.1, momentum=0.0, clip=10.0, every=1):
    return GateSteps(learning_rate, momentum, clip, every)


def logit(probability):
    return math.log(probability / (1 - probability))


def fallen(steps, start=0.9, gates=None, **shares):
    """By how many log-odds a unit without evidence falls up to the decision."""
    schedule = Schedule(Recipe(gates=gates or pace(), **{**UNIFORM, **shares}), steps)
    return logit(start) - logit(without_evidence(schedule, start))


# ---- a unit without evidence


def test_it_falls_by_the_rate_in_every_gate_step_before_the_decision():
    assert fallen(20) == pytest.approx(10 * 0.1)
    assert fallen(20, gates=pace(every=3)) == pytest.approx(4 * 0.1)  # steps 0, 3, 6, 9
    assert fallen(20, decide=0.8) == pytest.approx(16 * 0.1)
    assert fallen(20, start=0.6) == pytest.approx(10 * 0.1)


@pytest.mark.parametrize(("warmup", "falls"), [(0.05, 3), (0.15, 3), (0.2, 2), (0.3, 2), (0.35, 1)])
def test_in_the_warm_up_it_stands_still(warmup, falls):
    """Of 20 steps, the decision after 10; gates move at the steps that three divides: 3, 6 and 9."""
    assert fallen(20, gates=pace(every=3), warmup=warmup) == pytest.approx(falls * 0.1)


def test_momentum_lets_it_fall_late():
    """Σ (1 − βⁿ) over n = 1 … 10 is 10 − β (1 − β¹⁰) / (1 − β)."""
    beta = 0.8
    assert fallen(20, gates=pace(momentum=beta)) == pytest.approx(
        0.1 * (10 - beta * (1 - beta**10) / (1 - beta))
    )


def test_the_ramp_weighs_its_price():
    """Over 8 steps the weight is 0, 1/8 … 7/8, then 1 in two more: 3.5 + 2."""
    assert fallen(20, ramp=0.4) == pytest.approx(0.1 * 5.5)


def test_no_step_is_longer_than_the_clip():
    assert fallen(20, gates=pace(0.1, clip=0.03)) == pytest.approx(10 * 0.03)


def test_once_it_would_be_removed_it_falls_no_further():
    schedule = Schedule(Recipe(gates=pace(1.0), shrink=Shrink(below=0.02), **UNIFORM), 1000)
    assert without_evidence(schedule, 0.9) == 0.02


class Indifferent(bp.Categorical):
    """A likelihood that every output explains equally well: only prices are left to move a gate."""

    def nll(self, outputs, targets):
        return 0.0 * outputs.sum(-1)


@pytest.mark.parametrize("steps", [10, 30, 90])
def test_it_is_where_a_fit_takes_a_unit_that_explains_nothing(steps):
    gated = gated_for(likelihood=Indifferent(rows=20))
    recipe = Recipe(gates=pace(0.03, 0.5, every=2), warmup=0.1, ramp=0.3, decide=1.0)
    expected = without_evidence(Schedule(recipe, steps), 0.9)
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bp.fit(
            gated, rows(), epochs=steps, batch_size=20, recipe=recipe, progress=False,
            on_epoch=lambda epoch: seen.append(epoch.inclusion),
        )  # fmt: skip
    torch.testing.assert_close(seen[-1], torch.full_like(seen[-1], expected))


# ---- before


def gated_for(likelihood=None, **settings):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    prior = priors.BernoulliGates(priors.Flattening(price=5.0))
    likelihood = likelihood or bp.Categorical(rows=20)
    return bp.gate(network, torch.zeros(1, 4), prior=prior, likelihood=likelihood, **settings)


def rows(count=20):
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] > 0).long()


def said(schedule, gated=None):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_before(gated or gated_for(), schedule)
    assert all(entry.category is ClockWarning for entry in caught)
    return [str(entry.message) for entry in caught]


def test_what_is_said_before_a_short_training():
    """At 0.1 a step from 0.9 to 0.05 it takes 52 steps before the decision, half-way: 8, 16 … 128."""
    (message,) = said(Schedule(Recipe(gates=pace(), **UNIFORM), 8))
    assert message == (
        "In 8 steps a unit without any evidence only goes from q(z = 1) = 0.9 to 0.86, whatever its price: "
        "the clock would decide the mask, not the evidence. Take about 128 steps (more epochs, smaller "
        "batches), a later Recipe(decide=...), or leave Recipe(gates=...) out, whose pace then follows the "
        "number of steps."
    )


def test_it_is_said_up_to_the_number_of_steps_that_is_enough():
    """logit 0.9 − logit 0.05 = 5.14, which 52 steps of 0.1 are, and 51 are not."""
    recipe = Recipe(gates=pace(), **UNIFORM)
    assert [len(said(Schedule(recipe, steps))) for steps in (50, 102, 104, 400)] == [1, 1, 0, 0]


def test_five_in_a_hundred_is_low_enough():
    """From one half down by log 19 in a step is 0.05; by less it is above."""
    recipes = (Recipe(gates=pace(math.log(19.0) * share), **UNIFORM) for share in (1 + 1e-9, 0.99))
    gated = gated_for(initial_inclusion=0.5)
    assert [len(said(Schedule(recipe, 2), gated)) for recipe in recipes] == [0, 1]


def test_the_start_is_that_of_the_gate_that_is_furthest_open_and_alive():
    gated = gated_for(initial_inclusion={"input": 0.3, "0": 0.6})
    recipe = Recipe(gates=pace(0.01), **UNIFORM)
    assert "from q(z = 1) = 0.6 to" in said(Schedule(recipe, 8), gated)[0]
    gated.remove_(torch.tensor([False] * 4 + [True] * 5 + [False]))
    gated.log_odds.data[-1] = -2.0
    gated.log_odds.data[4] = 5.0  # is gone
    assert "from q(z = 1) = 0.3 to" in said(Schedule(recipe, 8), gated)[0]


def test_gates_that_are_certainly_open_have_a_start_too():
    gated = gated_for()
    gated.log_odds.data.fill_(60.0)
    assert "from q(z = 1) = 1 to 1," in said(Schedule(Recipe(gates=pace(), **UNIFORM), 8), gated)[0]


@pytest.mark.parametrize("steps", [300, 330, 1100, 4400, 18_720])
def test_by_default_gates_can_cross_from_300_steps_on(steps):
    assert said(Schedule(Recipe(), steps)) == []


@pytest.mark.parametrize("steps", [1, 10, 60])
def test_and_cannot_where_there_are_hardly_any(steps):
    (message,) = said(Schedule(Recipe(), steps))
    assert f"In {steps} steps" in message


# ---- after


def a_result(rounded, gates=20, decided_at=3, budget=None):
    gated = SimpleNamespace(
        alive=torch.ones(gates, dtype=torch.bool),
        prior=SimpleNamespace(budget=budget),
        likelihood=SimpleNamespace(),
    )
    return FitResult(gated, tuple(range(7)), 1.0, rounded, decided_at)


@pytest.mark.parametrize(("rounded", "gates", "by_clock"), [(0, 20, False), (1, 20, False), (2, 20, True)])
def test_more_than_one_gate_in_twenty_is_too_many(rounded, gates, by_clock):
    assert a_result(rounded, gates).decided_by_clock is by_clock


def test_units_that_are_gone_count_among_all_gates():
    result = a_result(2, 40)
    result.gated.alive[:39] = False
    assert not result.decided_by_clock
    assert a_result(3, 40).decided_by_clock


def test_a_budget_puts_gates_at_a_vertex_and_no_clock():
    assert not a_result(20, budget=object()).decided_by_clock


def test_what_is_said_after_it():
    with pytest.warns(ClockWarning) as caught:
        warn_after(a_result(2))
    assert [str(entry.message) for entry in caught] == [
        "2 of 20 gates were undecided when the selection's time was up (epoch 3 of 7), and were put at the "
        "nearer vertex: by the clock, not by evidence. Train for more epochs, decide later "
        "(Recipe(decide=...)), or look at the prices of the groups concerned."
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_after(a_result(1))


# ---- in a fit


def fitted(epochs, recipe=None, likelihood=None, **settings):
    """The result, and what was said of the clock: of the steps, and of the gates."""
    settings = {"batch_size": 20, "recipe": recipe, "progress": False, **settings}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = bp.fit(gated_for(likelihood=likelihood), rows(), epochs=epochs, **settings)
    found = [entry for entry in caught if entry.category is ClockWarning]
    return result, found


def test_a_fit_of_a_few_steps_says_so_before_and_after():
    result, (before, after) = fitted(epochs=10)
    assert str(before.message).startswith("In 10 steps a unit")
    assert str(after.message).startswith("10 of 10 gates were undecided")
    assert result.rounded == 10 and result.decided_by_clock
    assert f"epoch {result.decided_at} of 10" in str(after.message) and result.decided_at == 8
    assert {before.filename, after.filename} == {__file__}


def test_a_fit_whose_gates_are_decided_in_time_says_nothing():
    quick = Recipe(gates=pace(0.5, clip=0.5), warmup=0.0, ramp=0.1, decide=0.9)
    result, found = fitted(epochs=80, recipe=quick)
    assert found == [] and result.rounded == 0 and not result.decided_by_clock


def test_between_five_in_a_hundred_and_one_it_is_said_after_and_not_before():
    """11 steps of 0.5 from 0.9: to 0.036, low enough to be told from the rest, and not decided."""
    halfway = Recipe(gates=pace(0.5), **UNIFORM)
    result, (after,) = fitted(epochs=22, recipe=halfway, likelihood=Indifferent(rows=20))
    assert str(after.message).startswith("10 of 10 gates were undecided") and result.rounded == 10


def test_a_training_that_goes_on_is_not_told_again(tmp_path):
    def halt(epoch):
        if epoch.epoch == 4:
            raise KeyboardInterrupt

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(KeyboardInterrupt):
            fitted(epochs=10, checkpoint=tmp_path, on_epoch=halt)
    _, found = fitted(epochs=10, checkpoint=tmp_path, resume=True)
    assert [str(entry.message)[:5] for entry in found] == ["10 of"]
