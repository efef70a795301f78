"""Budgets in milliseconds and megabytes: bad ones are refused with a remedy; models follow the network."""

import math
import re
import time

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import BudgetWarning, PriorError
from bayesprune.rows.call import call_of
from bayesprune.structure import ExpectedCost
from bayesprune.structure.counting import Counter
from bayesprune.structure.groups import close_over
from bayesprune.structure.memory import memory_of
from bayesprune.structure.timing import own_clock, short_milliseconds

ROWS = 16


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 3))


def by_macs(layer, x):
    """A machine of one multiply-accumulate a nanosecond, and a microsecond for anything."""
    with Counter() as counter, torch.no_grad():
        layer(x)
    return 0.001 + 1e-6 * counter.macs


def gated_for(net=None, example=None, **budget):
    example = torch.zeros(1, 12) if example is None else example
    prior = bp.Budget(timer=by_macs, **budget)
    return bp.gate(net or network(), example, prior=prior, likelihood=bp.Categorical(rows=100))


@pytest.mark.parametrize(
    "budget, message",
    [
        ({"latency_ms": 1.0}, "latency_ms is for a pass over a batch.*write for example batch=64"),
        ({"memory_mb": 1.0}, "memory_mb is for a pass over a batch"),
        ({"latency_ms": 1.0, "memory_mb": 2.0}, "latency_ms, memory_mb is for a pass"),
        ({"macs": 0.5, "batch": 8}, "batch=8 says for how many rows.*give latency_ms= or memory_mb="),
        ({"batch": 8}, "and got none.*latency_ms=2.0, batch=64"),
        ({"latency_ms": 0, "batch": 8}, "latency_ms=0: .* must be positive numbers"),
        ({"latency_ms": -1.5, "batch": 8}, "latency_ms=-1.5"),
        ({"latency_ms": math.nan, "batch": 8}, "latency_ms=nan"),
        ({"latency_ms": math.inf, "batch": 8}, "latency_ms=inf"),
        ({"latency_ms": True, "batch": 8}, "latency_ms=True"),
        ({"memory_mb": "2", "batch": 8}, "memory_mb='2'"),
        ({"memory_mb": 0.0, "latency_ms": 0.0, "batch": 8}, "latency_ms=0.0, memory_mb=0.0"),
        ({"latency_ms": 1.0, "batch": 0}, "batch=0 must be a whole number of rows, at least 1"),
        ({"latency_ms": 1.0, "batch": 8.0}, "batch=8.0 must be a whole"),
        ({"memory_mb": 1.0, "batch": True}, "batch=True must be a whole"),
        ({"memory_mb": 1.0, "batch": "8"}, "batch='8' must be a whole"),
        ({"macs": 2, "latency_ms": 1.0, "batch": 8}, "macs=2"),
    ],
)
def test_wrong_limits(budget, message):
    with pytest.raises(PriorError, match=message):
        bp.Budget(**budget)


def dense_mb(net=None, rows=ROWS):
    net = net or network()
    return memory_of(net, call_of(net, torch.zeros(rows, 12))) / 1e6


def test_memory_below_the_smallest_network_is_refused_by_gate():
    floor = 4 * (ROWS * 12 + 1 + 1 + 1 + 1 + 3 + 3) / 1e6
    with pytest.raises(PriorError) as caught:
        gated_for(memory_mb=floor / 2, batch=ROWS)
    told = str(caught.value)
    assert re.match(
        r"Budget memory_mb=\S+ cannot be met: the smallest network that the groups allow takes \S+ MB for 16 "
        r"rows, and the dense one \S+ MB\. Ask for more, give a smaller batch=, or gate more groups",
        told,
    )
    smallest = float(re.search(r"takes (\S+) MB", told)[1])
    assert floor < smallest < 0.3 * dense_mb()  # what is selected, and results, besides
    gated_for(memory_mb=1.01 * smallest, batch=ROWS)


def test_memory_that_the_dense_network_does_not_take_is_said_to_ask_for_nothing():
    message = (
        f"Budget memory_mb={2 * dense_mb():g} asks for nothing: the dense network takes {dense_mb():.4g} MB "
        "for 16 rows. Lower it, or leave it out."
    )
    with pytest.warns(BudgetWarning, match=f"^{re.escape(message)}$"):
        gated = gated_for(memory_mb=2 * dense_mb(), batch=ROWS)
    assert bool(gated.prior.budget[-1].isnan())
    with pytest.warns(BudgetWarning, match="for 1 row\\."):
        gated_for(memory_mb=2 * dense_mb(), batch=1)


def test_limits_are_told_and_their_prices_start_low():
    gated = gated_for(macs=0.5, latency_ms=1.0, memory_mb=0.9 * dense_mb(), batch=ROWS)
    prior = gated.prior
    assert prior.told() == f"macs=0.5, latency_ms=1, memory_mb={0.9 * dense_mb():g}, batch=16"
    assert list(prior.multipliers) == ["macs", "params", "latency_ms", "memory_mb"]
    assert prior.multipliers == pytest.approx(
        {"macs": 2.0, "params": 0.0, "latency_ms": 1.0, "memory_mb": 1.0}
    )
    assert prior.budget.tolist()[:3] == pytest.approx([0.5, math.nan, math.nan], nan_ok=True)
    assert float(prior.budget[3]) == pytest.approx(0.9, rel=1e-6)
    assert not bool(prior.begun) and int(prior.table.count_nonzero()) == 0


def test_the_model_of_memory_is_what_cut_networks_take():
    """Exact here: no unit of the inputs goes, and the forward of a row holds on to nothing."""
    gated = bp.gate(
        network(), torch.zeros(1, 12), prior=bp.Budget(memory_mb=0.8 * dense_mb(), batch=ROWS),
        likelihood=bp.Categorical(rows=100), exclude=("input",),
    )  # fmt: skip
    prior, generator = gated.prior, torch.Generator().manual_seed(1)
    costs = ExpectedCost(prior.costed(gated.network))
    for _ in range(4):
        masks = {g.name: torch.rand(g.size, generator=generator) < 0.8 for g in gated.groups}
        masks = close_over(gated.network.slots, masks)
        share = float(prior.shares(costs, torch.cat(list(masks.values())).double())[-1])
        value = float(prior.measured.measure(gated.network, masks))
        assert share * dense_mb() == pytest.approx(value, rel=1e-12)


def test_the_model_of_time_is_what_cut_networks_take_where_time_is_multiplications():
    gated = gated_for(latency_ms=0.02, batch=ROWS)
    prior, generator = gated.prior, torch.Generator().manual_seed(1)
    prior.table.copy_(prior.measured.profile(gated.network) - 0.001)
    prior.whole.copy_(prior.measured.whole(prior.table))
    assert float(prior.table.sum()) == pytest.approx(1e-6 * ROWS * gated.dense_macs, rel=1e-12)
    costs = ExpectedCost(prior.costed(gated.network))
    for _ in range(4):
        masks = {g.name: torch.rand(g.size, generator=generator) < 0.7 for g in gated.groups}
        masks = close_over(gated.network.slots, masks)
        shares = prior.shares(costs, torch.cat(list(masks.values())).double())
        assert float(shares[-1]) == pytest.approx(float(shares[0]), rel=1e-9)
        value = float(prior.measured.measure(gated.network, masks)) - 0.001
        assert float(shares[-1]) * float(prior.table.sum()) == pytest.approx(value, rel=1e-9)


def test_a_model_that_lost_units_costs_the_same_by_what_is_left():
    gated = gated_for(latency_ms=0.02, memory_mb=0.9 * dense_mb(), batch=ROWS)
    prior = gated.prior
    prior.table.copy_(prior.measured.profile(gated.network))
    prior.whole.copy_(prior.measured.whole(prior.table))
    dead = torch.arange(len(gated.alive)) % 3 == 0
    keep = (gated.alive & ~dead).double()
    before = prior.shares(ExpectedCost(prior.costed(gated.network)), keep)
    gated.remove_(dead)
    after = prior.shares(ExpectedCost(prior.costed(gated.network)), gated.alive.double())
    torch.testing.assert_close(before, after)


def test_what_is_not_measured_costs_what_it_did():
    plain = bp.gate(
        network(), torch.zeros(1, 12), prior=bp.Budget(macs=0.5), likelihood=bp.Categorical(rows=100)
    )
    limited = gated_for(macs=0.5, latency_ms=1.0, batch=ROWS)
    assert plain.prior.state_dict().keys() < limited.prior.state_dict().keys()  # older checkpoints fit
    probs = torch.rand(len(plain.alive), generator=torch.Generator().manual_seed(0)).double()
    few = plain.prior.shares(ExpectedCost(plain.network), probs)
    more = limited.prior.shares(ExpectedCost(limited.prior.costed(limited.network)), probs)
    assert torch.equal(few, more[:2])


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.head = nn.Linear(4, 8), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, a, b):
        return self.head(torch.relu(self.left(a) + self.right(b)))


def test_networks_of_several_inputs_are_measured():
    gated = gated_for(Two(), (torch.zeros(2, 4), torch.zeros(2, 6)), latency_ms=1.0, batch=5)
    whole = {g.name: torch.ones(g.size, dtype=torch.bool) for g in gated.groups}
    value = gated.prior.measured.measure(gated.network, whole)
    assert value.tolist() == pytest.approx([0.001 + 1e-6 * 5 * gated.dense_macs])


# ---- the clock


class Clock:
    """Seconds of a machine on which passes take given times, over and over."""

    def __init__(self, passes):
        self.passes, self.now, self.calls = passes, 0.0, 0

    def __call__(self):
        self.calls += 1
        if self.calls % 2 == 0:
            self.now += self.passes[(self.calls // 2 - 1) % len(self.passes)]
        return self.now


@pytest.mark.parametrize("seconds, passes", [(1.0, 10), (0.004, 25), (1e-5, 100), (0.0, 100)])
def test_short_passes_are_timed_more_often(seconds, passes):
    clock = Clock([seconds])
    assert short_milliseconds(nn.Identity(), torch.zeros(1), clock) == pytest.approx(1000 * seconds)
    assert clock.calls == 2 * (3 + 1 + 3 + passes)


def test_the_shortest_of_many_passes_counts():
    clock = Clock([0.004] * 12 + [0.003] + [0.009] * 20)
    assert short_milliseconds(nn.Identity(), torch.zeros(1), clock) == pytest.approx(3.0)


def test_one_thread_is_timed_by_its_own_clock():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert own_clock(torch.zeros(1)) is time.thread_time
        torch.set_num_threads(2)
        assert own_clock(torch.zeros(1)) is time.perf_counter
        assert own_clock(torch.zeros(1, device="meta")) is time.perf_counter
    finally:
        torch.set_num_threads(before)
