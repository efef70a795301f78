"""What a training does when: every quantity of the schedule against its closed form."""

import math

import pytest

from bayesprune.svi import GateSteps, Recipe
from bayesprune.svi.schedule import Schedule
from bayesprune.svi.settings import Shrink

LENGTHS = [300, 549, 550, 551, 1100, 1649, 1651, 2749, 2751, 3849, 3851, 4400, 5500, 18_720, 30_000]


def by_default(steps, **settings):
    return Schedule(Recipe(**settings), steps)


# ---- the gates' pace


@pytest.mark.parametrize("steps", LENGTHS)
def test_from_300_steps_on_a_unit_without_evidence_could_fall_by_468_log_odds(steps):
    """One gate step in k of the training, each by η: η · steps / k = 468, as 0.1 · 18,720 / 4 is."""
    gates = by_default(steps).gates
    assert gates.learning_rate * steps / gates.every == pytest.approx(468, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 7, 30, 150, 299])
def test_below_300_steps_it_falls_less_by_the_third_power(steps):
    gates = by_default(steps).gates
    assert gates.every == 1
    assert gates.learning_rate == pytest.approx(1.56 * (steps / 300) ** 3, rel=1e-12)  # 1.56 = 468 / 300
    assert gates.clip == pytest.approx(6.24 * (steps / 300) ** 3, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 150, *LENGTHS])
def test_the_clip_is_four_times_the_fall_of_a_unit_without_evidence(steps):
    gates = by_default(steps).gates
    assert gates.clip == pytest.approx(4 * gates.learning_rate, rel=1e-12)
    assert gates.bound == 8.0


@pytest.mark.parametrize("steps", [94, 150, *LENGTHS])
def test_momentum_remembers_a_share_of_the_training(steps):
    """k / (1 − β) steps are 200 of 18,720: one in 93.6."""
    gates = by_default(steps).gates
    assert gates.every / (1 - gates.momentum) == pytest.approx(steps / 93.6, rel=1e-9)


@pytest.mark.parametrize("steps", [1, 50, 93])
def test_a_training_too_short_for_it_has_no_momentum(steps):
    assert by_default(steps).gates.momentum == 0.0


@pytest.mark.parametrize(
    ("steps", "every"),
    [(1, 1), (1100, 1), (1649, 1), (1651, 2), (2749, 2), (2751, 3), (3849, 3), (3851, 4), (10**6, 4)],
)
def test_gates_move_every_fourth_step_of_long_trainings_and_more_often_in_short_ones(steps, every):
    """The whole number next to steps / 1,100, between 1 and 4."""
    assert by_default(steps).gates.every == every


def test_at_the_tuned_length_it_is_what_was_tuned():
    tuned = by_default(18_720).gates
    assert (tuned.learning_rate, tuned.momentum, tuned.clip, tuned.every) == (0.1, 0.98, 0.4, 4)


def test_what_is_given_is_taken_as_it_is():
    gates, shrink = GateSteps(0.3, 0.5, 0.7, 2, 3.0), Shrink(every=17)
    schedule = by_default(41, gates=gates, learning_rate=0.07, compact_learning_rate=0.03, shrink=shrink)
    assert schedule.gates is gates
    assert (schedule.rate, schedule.compact_rate, schedule.look_every) == (0.07, 0.03, 17)


# ---- no cliff


def per_step(steps):
    """What a training does in a step of its own: the gates' fall and memory, and Adam's rate."""
    schedule = by_default(steps)
    gates = schedule.gates
    memory = gates.every / (1 - gates.momentum)
    return gates.learning_rate / gates.every, gates.clip / gates.every, memory, schedule.rate


def test_one_step_more_changes_nothing_by_much():
    """As a power of the length, the third at most: so no length of a training is a cliff."""
    for steps in (*range(1, 6000), 18_719, 30_000):
        most = ((steps + 1) / steps) ** 3 + 1e-9
        for one, other in zip(per_step(steps), per_step(steps + 1), strict=True):
            assert 1 / most <= other / one <= most, steps


def test_over_the_lengths_all_goes_one_way():
    short = [per_step(steps) for steps in range(1, 301)]
    long = [per_step(steps) for steps in range(300, 20_000, 7)]
    assert [fall for fall, *_ in short] == sorted(fall for fall, *_ in short)
    assert [fall for fall, *_ in long] == sorted((fall for fall, *_ in long), reverse=True)
    for of in (short, long):
        assert [memory for *_, memory, _ in of] == sorted(memory for *_, memory, _ in of)
        assert [rate for *_, rate in of] == sorted((rate for *_, rate in of), reverse=True)


# ---- weights


@pytest.mark.parametrize(
    ("steps", "rate"),
    [(1, 1e-2), (1100, 1e-2), (2200, 5e-3), (4400, 2.5e-3), (5500, 2e-3), (18_720, 2e-3), (10**6, 2e-3)],
)
def test_adams_rate_carries_a_weight_by_eleven_where_the_least_and_the_highest_rate_allow(steps, rate):
    schedule = by_default(steps)
    assert schedule.rate == pytest.approx(rate, rel=1e-12)
    assert schedule.compact_rate == schedule.rate
    if 1100 <= steps <= 5500:
        assert steps * schedule.rate == pytest.approx(11)


def test_the_rate_stands_up_to_the_decision_and_falls_along_a_cosine_after_it():
    schedule = by_default(100, learning_rate=0.02, compact_learning_rate=0.08)
    assert [schedule.learning_rate(step, None) for step in (0, 50, 99)] == [0.02] * 3
    rates = [schedule.learning_rate(step, 60) for step in (60, 70, 80, 90, 100)]
    share = [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0.0]
    assert rates == pytest.approx([0.08 * s for s in share], abs=1e-15)


def test_the_cosine_levels_off_at_its_floor():
    schedule = by_default(100, learning_rate=0.02, compact_floor=0.25, averaging=0.5)
    assert schedule.learning_rate(100, 60) == pytest.approx(0.005)
    assert schedule.learning_rate(80, 60) == pytest.approx(0.01)


@pytest.mark.parametrize("decided_at", [99, 100])
def test_a_decision_at_the_very_end_leaves_the_rate_where_it_was(decided_at):
    schedule = by_default(100, learning_rate=0.02)
    assert schedule.learning_rate(decided_at, decided_at) == 0.02
    assert schedule.learning_rate(decided_at + 1, decided_at) == pytest.approx(0.0, abs=1e-15)


def test_weights_are_averaged_over_a_share_of_the_compact_part_at_its_end():
    schedule = by_default(100, averaging=0.25)
    assert [step for step in range(100) if schedule.averages(step, 60)] == list(range(90, 100))
    assert not any(schedule.averages(step, None) for step in range(100))
    assert not any(by_default(100).averages(step, 60) for step in range(101))


# ---- times


@pytest.mark.parametrize(
    ("steps", "every"), [(1, 1), (65, 1), (67, 2), (1100, 25), (4378, 100), (4400, 100), (30_000, 100)]
)
def test_dead_units_are_looked_for_44_times_or_every_hundred_steps(steps, every):
    assert by_default(steps).look_every == every


def test_shares_of_the_training_are_its_steps():
    schedule = by_default(250, warmup=0.03, decide=0.71)
    assert (schedule.warmup, schedule.decide) == (8, 178)  # 7.5 and 177.5, to the even one


def test_the_priors_weight_is_nothing_in_the_warm_up_and_rises_in_a_straight_line_after_it():
    schedule = by_default(200, warmup=0.1, ramp=0.2)
    weights = [schedule.prior_weight(step) for step in range(200)]
    assert weights[:20] == [0.0] * 20
    assert weights[20:60] == pytest.approx([n / 40 for n in range(40)])
    assert weights[60:] == [1.0] * 140


def test_without_a_ramp_the_priors_weight_is_whole_at_once():
    schedule = by_default(200, warmup=0.1, ramp=0.0)
    assert [schedule.prior_weight(step) for step in (19, 20, 21, 199)] == [0.0, 1.0, 1.0, 1.0]
