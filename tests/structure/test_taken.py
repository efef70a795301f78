"""measure(): what a pass takes, and a warning where multiplications fell and time did not."""

import math
import re
import warnings

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import LatencyWarning, SettingsError, UnsupportedNetworkError
from bayesprune.rows.call import call_of
from bayesprune.structure.memory import memory_of


def network(width):
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 4))


def by_size(overhead):
    """A machine of a nanosecond a weight and row, with an overhead in milliseconds."""
    return lambda net, x: overhead + 1e-6 * len(x) * sum(p.numel() for p in net.parameters() if p.ndim == 2)


X = torch.randn(5, 6)


def test_what_a_pass_takes():
    dense, small = network(40), network(10)
    found = bp.measure(small, X, batch=12, against=dense, timer=by_size(0.0))
    rows = X.repeat(3, 1)[:12].clone()
    assert found.milliseconds == pytest.approx(1e-6 * 12 * 100) and found.batch == 12
    assert found.megabytes == memory_of(small, call_of(small, rows)) / 1e6
    assert (found.macs, found.parameters) == (100, 114)
    assert found.against == bp.measure(dense, X, batch=12, timer=by_size(0.0))
    assert found.time_share == pytest.approx(0.25) and found.macs_share == 0.25
    assert found.device == "cpu"


def test_by_itself_there_is_nothing_to_compare_with():
    found = bp.measure(network(10), X, timer=by_size(0.0))
    assert found.batch == 5 and found.against is None
    assert math.isnan(found.time_share) and math.isnan(found.macs_share)


def test_a_warning_where_multiplications_fall_and_time_does_not():
    with pytest.warns(LatencyWarning) as caught:
        found = bp.measure(network(10), X, against=network(40), timer=by_size(0.006))
    assert found.time_share == pytest.approx(0.0065 / 0.008)
    message = (
        "Multiply-accumulates fell to 25 %, and time to 81.2 % (0.0065 of 0.008 ms for 5 rows on cpu). Ask "
        "for sizes that hardware computes in, bp.Budget(..., multiple_of=8), for time itself, "
        "bp.Budget(latency_ms=0.00425, batch=5), or measure a larger batch=."
    )
    assert re.sub(r"81\.\d", "81.2", str(caught[0].message)) == message
    assert caught[0].filename == __file__


def test_the_warning_begins_where_time_saves_less_than_half_as_much():
    with pytest.warns(LatencyWarning, match="fell to 25 %"):
        bp.measure(network(10), X, against=network(40), timer=by_size(0.0021))


@pytest.mark.parametrize(
    "width, overhead",
    [(10, 0.0), (10, 0.0019), (39, 0.1), (40, 0.1), (60, 0.0)],
    ids=["as much", "half as much", "hardly fewer", "as many", "more"],
)
def test_no_warning_where_time_falls_too_or_nothing_fell(width, overhead):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bp.measure(network(width), X, against=network(40), timer=by_size(overhead))


def test_networks_are_left_alone_and_timed_in_turns_in_eval_mode():
    seen = []

    def timer(net, x):
        assert not net.training
        seen.append(net[0].out_features)
        return 1.0 + len(seen) % 3

    dense, small = network(40).train(), network(10).train()
    with pytest.warns(LatencyWarning):
        found = bp.measure(small, X, against=dense, timer=timer)
    assert seen[:4] == [10, 40, 10, 40] and seen.count(10) == seen.count(40) >= 3
    assert found.milliseconds == found.against.milliseconds == 1.0  # the shortest of all turns
    assert small.training and dense.training


def test_a_real_clock_gives_a_positive_time():
    assert bp.measure(network(10), X).milliseconds > 0


@pytest.mark.parametrize("batch", [0, -1, 2.0, True, "8"])
def test_wrong_batches(batch):
    with pytest.raises(SettingsError, match=r"batch=.* must be a whole number of rows, at least 1"):
        bp.measure(network(4), X, batch=batch)


def test_wrong_networks_and_examples():
    with pytest.raises(UnsupportedNetworkError, match=r"measure takes a torch.nn.Module"):
        bp.measure("network", X)
    with pytest.raises(UnsupportedNetworkError, match=r"measure takes a torch.nn.Module"):
        bp.measure(network(4), X, against=4)
    with pytest.raises(UnsupportedNetworkError, match="does not accept the example"):
        bp.measure(network(4), torch.zeros(2, 7), timer=lambda net, x: 1.0)
