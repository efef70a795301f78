"""Fits under milliseconds and megabytes: the network that comes out is measured, and at its limits."""

import re

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import BudgetWarning, CheckpointError, PriorError
from bayesprune.rows.call import call_of
from bayesprune.structure.counting import Counter
from bayesprune.structure.memory import memory_of
from bayesprune.svi.fitter import Fitter
from bayesprune.svi.limits import CLOSE, TRIES, Meeting, _on_line, calibrate_, follow_
from bayesprune.svi.pricing import Pricing
from bayesprune.svi.schedule import Schedule
from tests.svi.fits import FAST, ROWS, data, fit, same

BATCH = 16


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(36, 40), nn.ReLU(), nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 2)
    )


def by_macs(layer, x):
    """A machine of one multiply-accumulate a nanosecond, and two microseconds for anything."""
    with Counter() as counter, torch.no_grad():
        layer(x)
    return 0.002 + 1e-6 * counter.macs


def in_blocks(layer, x):
    """A machine that computes eight units at a time."""
    linear = [m for m in layer.modules() if isinstance(m, nn.Linear)]
    if not linear:
        return by_macs(layer, x)
    return 0.002 + sum(1e-6 * len(x) * (-(-m.out_features // 8) * 8) * m.in_features for m in linear)


class Noisy:
    """A clock that is up to four per cent late, at times far more: its shortest times are nearly right."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, layer, x):
        late = torch.rand(2, generator=self.generator)
        return by_macs(layer, x) * (1 + 0.04 * float(late[0]) + (float(late[1]) > 0.7))


class Later:
    """A clock on another machine, where operations take ten times as long one by one; notes what it timed."""

    def __init__(self, factor=10.0):
        self.factor, self.seen = factor, []

    def __call__(self, layer, x):
        self.seen.append(type(layer).__name__)
        return by_macs(layer, x) * (self.factor if self.seen[-1] == "_Step" else 1.0)


def gated_for(timer=by_macs, net=None, **budget):
    likelihood = bp.Categorical(rows=ROWS)
    prior = bp.Budget(timer=timer, **budget)
    return bp.gate(net or network(), data()[0][:1], prior=prior, likelihood=likelihood)


def milliseconds(result, timer=by_macs):
    return timer(bp.prune(result), data()[0][:BATCH])


def megabytes(result):
    return memory_of(bp.prune(result), call_of(network(), data()[0][:BATCH].clone())) / 1e6


def dense_ms():
    return by_macs(network(), data()[0][:BATCH])


def dense_mb():
    return memory_of(network(), call_of(network(), data()[0][:BATCH].clone())) / 1e6


@pytest.mark.parametrize("share", [0.3, 0.6])
@pytest.mark.parametrize("seed", [0, 1])
def test_milliseconds_are_met_and_used(share, seed):
    limit = share * dense_ms()
    result = fit(gated_for(latency_ms=limit, batch=BATCH), seed=seed)
    assert 1 - CLOSE <= milliseconds(result) / limit <= 1
    assert result.gated.prior.seen[0].tolist() == pytest.approx(
        [dense_ms(), float(result.gated.prior.seen[0, 1]), milliseconds(result)]
    )
    assert result.undecided == 0 and not result.decided_by_clock


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_megabytes_are_met_and_used(share):
    limit = share * dense_mb()
    result = fit(gated_for(memory_mb=limit, batch=BATCH))
    assert 1 - CLOSE <= megabytes(result) / limit <= 1
    assert float(result.gated.prior.seen[0, 2]) == pytest.approx(megabytes(result), rel=1e-9)


def test_several_limits_hold_together():
    limits = {"latency_ms": 0.5 * dense_ms(), "memory_mb": 0.7 * dense_mb()}
    result = fit(gated_for(macs=0.6, params=0.6, batch=BATCH, **limits))
    used = [
        milliseconds(result) / limits["latency_ms"],
        megabytes(result) / limits["memory_mb"],
        result.history[-1].macs_percent / 60,
        result.history[-1].parameters_percent / 60,
    ]
    assert max(used) <= 1 and any(share >= 1 - 0.05 for share in used)


def test_what_is_counted_decides_where_it_is_harder():
    result = fit(gated_for(macs=0.2, latency_ms=0.9 * dense_ms(), batch=BATCH))
    assert 0.98 <= result.history[-1].macs_percent / 20 <= 1
    assert milliseconds(result) < 0.5 * dense_ms()


@pytest.mark.filterwarnings("ignore::bayesprune.errors.BudgetWarning")  # steps of eight are coarse
def test_sizes_are_held_beside_milliseconds():
    limit = 0.5 * dense_ms()
    result = fit(gated_for(latency_ms=limit, batch=BATCH, multiple_of=8, timer=in_blocks))
    assert 0.6 < milliseconds(result, in_blocks) / limit <= 1
    for group, kept in zip(result.gated.groups, result.architecture, strict=True):
        assert kept % 8 == 0 or kept == group.size


def test_a_machine_of_blocks_is_met_though_the_model_knows_of_none():
    limit = 0.5 * in_blocks(network(), data()[0][:BATCH])
    result = fit(gated_for(latency_ms=limit, batch=BATCH, timer=in_blocks))
    assert 1 - CLOSE <= milliseconds(result, in_blocks) / limit <= 1


def by_blocks_alone(layer, x):
    """A machine on which the first unit of eight costs as much as all eight."""
    linear = [m for m in layer.modules() if isinstance(m, nn.Linear)]
    blocks = [-(-m.out_features // 8) for m in linear]
    return 0.001 + sum(0.01 * n for n in blocks) if blocks else by_macs(layer, x)


def test_room_that_blocks_leave_is_filled():
    """Nine units cost what sixteen do: seven more come back, those with the most evidence."""
    gated = gated_for(latency_ms=0.066, batch=BATCH, timer=by_blocks_alone)
    prior, alive = gated.prior, gated.alive.cpu()
    calibrate_(gated, prior, 1)
    gain = torch.rand(len(alive), generator=torch.Generator().manual_seed(0)).double()
    fitter = Fitter(gated, prior, gain, 1)
    part = gated.slices()["1"]
    keep = alive.clone()
    order = part.start + gain[part].argsort(descending=True)
    keep[order[9:]] = False
    meeting = Meeting(gated, prior, lambda scale: (keep, fitter))
    filled = meeting._filled(keep, fitter)
    assert int(keep[part].sum()) == 9 and int(filled[part].sum()) == 16
    assert bool(filled[order[: int(filled[part].sum())]].all())
    assert meeting.values(filled) == meeting.values(keep)
    assert bool((filled | ~keep).all())


@pytest.mark.parametrize("above", [True, False])
def test_what_a_removal_would_leave_is_measured_before_it_happens(above, monkeypatch):
    """And where that is too near to the limit, or below it, nothing goes."""
    gated = gated_for(latency_ms=0.5 * dense_ms(), batch=BATCH)
    pricing = Pricing(gated, gated.prior, Schedule(bp.Recipe(**FAST), 100))
    pricing.begin_(data()[0][:BATCH])
    dead, seen = torch.arange(len(gated.alive)) % 10 == 0, []

    def follow(gated, prior, keep, slack, rows):
        seen.append(keep)
        return above

    monkeypatch.setattr("bayesprune.svi.pricing.follow_", follow)
    going = pricing.spare(dead, torch.zeros(len(dead)))
    assert len(seen) == 1 and torch.equal(seen[0], ~dead)
    assert torch.equal(going, dead if above else torch.zeros_like(dead))
    monkeypatch.setattr("bayesprune.svi.pricing.NEAR", 0.5)  # far off nothing is measured
    assert torch.equal(pricing.spare(dead, torch.zeros(len(dead))), dead) and len(seen) == 1


def test_models_follow_what_is_measured():
    pace = [1.0]
    limit = 0.5 * dense_ms()
    gated = gated_for(latency_ms=limit, batch=BATCH, timer=lambda layer, x: pace[0] * by_macs(layer, x))
    prior = gated.prior
    calibrate_(gated, prior, 1)
    before = float(prior.budget[-1])
    keep = gated.alive.cpu().clone()
    keep[10:20] = False
    assert follow_(gated, prior, keep, 1.5)  # far above the limit
    assert float(prior.budget[-1]) == pytest.approx(before, rel=0.05)
    assert not follow_(gated, prior, keep, 3.0)  # and not three times as far
    pace[0] = 0.6  # such a network is faster than the model says: more of it may stay
    follow_(gated, prior, keep, 1.5)
    assert float(prior.budget[-1]) > 1.1 * before


@pytest.mark.parametrize(
    "left, taken, dense, aim, share",
    [
        (0.5, 1.0, 2.0, 1.0, 0.5),  # in proportion, at the limit
        (0.5, 1.25, 2.0, 1.0, 0.5 * 0.5 / 0.75),  # half a limit of overhead
        (0.25, 0.5, 2.0, 1.0, 0.5),
        (1.0, 2.0, 2.0, 1.0, 0.5),  # the dense network itself: in proportion
        (0.5, 2.0, 2.0, 1.0, 0.5 * 0.5 / 1.5),  # nothing gained: overheads are at most half of the limit
    ],
)
def test_the_line_to_the_dense_network(left, taken, dense, aim, share):
    assert _on_line(left, taken, dense, aim) == pytest.approx(share)


def test_a_noisy_clock_costs_no_more_than_its_noise():
    limit = 0.5 * dense_ms()
    result = fit(gated_for(latency_ms=limit, batch=BATCH, timer=Noisy()))
    assert 0.9 <= milliseconds(result) / limit <= 1


def test_milliseconds_below_the_smallest_network_are_refused_before_the_first_step():
    gated = gated_for(latency_ms=0.002, batch=BATCH)
    before = {name: value.clone().nan_to_num() for name, value in gated.state_dict().items()}
    with pytest.raises(PriorError) as caught:
        fit(gated)
    assert re.match(
        r"Budget latency_ms=0.002 cannot be met: the smallest network that the groups allow takes 0\.0\d+ "
        r"ms for 16 rows, and the dense one 0\.0\d+ ms\. Ask for more, give a smaller batch=, or gate more ",
        str(caught.value),
    )
    assert all(torch.equal(value, gated.state_dict()[name].nan_to_num()) for name, value in before.items())


def test_milliseconds_that_the_dense_network_does_not_take_are_said_to_ask_for_nothing():
    gated = gated_for(latency_ms=2 * dense_ms(), batch=BATCH)
    message = f"asks for nothing: the dense network takes {dense_ms():.4g} ms for 16 rows. Lower it"
    with pytest.warns(BudgetWarning, match=re.escape(message)) as caught:
        result = fit(gated)
    assert len(caught) == 1
    assert result.architecture == [36, 40, 24]


def test_a_limit_that_asks_for_nothing_leaves_the_others_as_they_are():
    with pytest.warns(BudgetWarning, match="asks for nothing"):
        result = fit(gated_for(macs=0.4, latency_ms=2 * dense_ms(), batch=BATCH))
    assert 0.98 <= result.history[-1].macs_percent / 40 <= 1


def test_a_warning_where_units_are_too_large_for_the_window():
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 2), nn.ReLU(), nn.Linear(2, 2))  # one unit, or two
    likelihood = bp.Categorical(rows=ROWS)
    limit = 0.9 * by_macs(net, data()[0][:BATCH])
    prior = bp.Budget(latency_ms=limit, batch=BATCH, timer=by_macs)
    gated = bp.gate(net, data()[0][:1], prior=prior, likelihood=likelihood, exclude=("input",))
    told = (
        r"ends at 0\.\d+ ms \(\d\d\.\d %\), as measured, since no choice .* Ask for another limit.*exclude="
    )
    with pytest.warns(BudgetWarning, match=told):
        result = fit(gated)
    assert result.architecture == [1]


def test_guards_of_groups_make_the_smallest_network_larger():
    limit = 0.35 * dense_mb()
    shrink = bp.Shrink(every=3, least=20)
    with pytest.raises(PriorError, match=r"memory_mb=.* cannot be met"):
        fit(gated_for(memory_mb=limit, batch=BATCH), shrink=shrink)
    limit = 0.2 * dense_ms()
    with pytest.raises(PriorError, match=r"latency_ms=.* cannot be met"):
        fit(gated_for(latency_ms=limit, batch=BATCH), shrink=shrink)


def test_what_lives_stays_above_its_limit_until_gates_are_decided(monkeypatch):
    seen, remove_ = [], bp.GatedModel.remove_

    def watched(self, dead, optimiser=None):
        remove_(self, dead, optimiser)
        seen.append(self.network.macs() / self.dense_macs)

    monkeypatch.setattr(bp.GatedModel, "remove_", watched)
    result = fit(gated_for(latency_ms=0.5 * dense_ms(), batch=BATCH), epochs=8)
    share = (0.5 * dense_ms() - 0.002) / (dense_ms() - 0.002)
    assert all(left > share for left in seen[:-1]) and seen[-1] <= share
    assert milliseconds(result) <= 0.5 * dense_ms()


def test_few_networks_are_measured():
    timer = Later(1.0)
    fit(gated_for(latency_ms=0.5 * dense_ms(), batch=BATCH, timer=timer))
    whole = timer.seen.count("Sequential")
    assert 0 < whole <= 5 * (2 + 2 + TRIES) and timer.seen.count("_Step") == 6


@pytest.mark.parametrize("stop", [1, 3, 5], ids=["warm", "before the decision", "after it"])
def test_a_resumed_fit_decides_by_the_table_that_was_measured(stop, tmp_path):
    """Bit-equal, though by then passes take ten times as long one by one: only the decision is measured."""

    class Stop(Exception):
        pass

    def interrupt(epoch):
        if epoch.epoch == stop:
            raise Stop

    limits = {"latency_ms": 0.5 * dense_ms(), "memory_mb": 0.9 * dense_mb(), "batch": BATCH}
    limits |= {"macs": 0.9, "params": 0.9}
    whole = fit(gated_for(**limits))
    with pytest.raises(Stop):
        fit(gated_for(**limits), checkpoint=tmp_path, on_epoch=interrupt)
    torch.manual_seed(99)

    timer = Later()
    resumed = fit(gated_for(timer=timer, **limits), checkpoint=tmp_path, resume=True)
    same(whole, resumed)
    assert "_Step" not in timer.seen and ("Sequential" in timer.seen) == (stop < 4)
    with pytest.raises(CheckpointError, match=r"other settings: .*latency_ms"):
        fit(gated_for(**{**limits, "latency_ms": 0.6 * dense_ms()}), checkpoint=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="other settings"):
        fit(gated_for(**{**limits, "batch": 17}), checkpoint=tmp_path, resume=True)


def test_a_fit_measures_on_its_own_rows():
    """Not on the example: how long some operations take hangs on the numbers."""
    seen = []

    def timer(layer, x):
        seen.append((len(x), float(x.abs().sum())))
        return by_macs(layer, x)

    x, y = data()
    prior = bp.Budget(latency_ms=0.5 * dense_ms(), batch=20, timer=timer)
    gated = bp.gate(network(), torch.zeros(1, 1, 6, 6), prior=prior, likelihood=bp.Categorical(rows=ROWS))
    fit(gated, (x, y))
    assert {rows for rows, _ in seen} == {20} and all(total > 0 for _, total in seen)


def test_nothing_is_measured_where_nothing_is_asked(monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr("bayesprune.svi.pricing.calibrate_", refuse)
    monkeypatch.setattr("bayesprune.svi.pricing.Meeting", refuse)
    likelihood = bp.Categorical(rows=ROWS)
    fit(bp.gate(network(), data()[0][:1], prior=bp.Budget(macs=0.5), likelihood=likelihood))


def test_measuring_leaves_random_numbers_alone():
    """A limit that asks for nothing leaves a fit what it is without one."""
    shares = {"macs": 0.5}
    likelihood = bp.Categorical(rows=ROWS)
    plain = fit(bp.gate(network(), data()[0][:1], prior=bp.Budget(**shares), likelihood=likelihood))
    with pytest.warns(BudgetWarning, match="asks for nothing"):
        limited = fit(gated_for(latency_ms=2 * dense_ms(), batch=BATCH, **shares))
    assert plain.architecture == limited.architecture
    for name, value in plain.gated.network.state_dict().items():
        assert torch.equal(value, limited.gated.network.state_dict()[name])
