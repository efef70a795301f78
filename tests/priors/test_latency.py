"""Price.latency: milliseconds a unit from a timer, and a warning where narrower is not faster."""

import itertools

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import LatencyWarning, PriorError
from bayesprune.priors.latency import fastest_milliseconds


def network():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 2)
    )


EXAMPLE = torch.zeros(2, 1, 6, 6)


def by_macs(layer, x):
    """A machine of one multiply-accumulate a microsecond."""
    positions = layer(x)[0, 0].numel()
    return 0.001 * layer.weight.numel() * positions * len(x)


def in_blocks(layer, x):
    """A machine that computes sixteen units at a time."""
    out, into = (-(-n // 16) * 16 for n in layer.weight.shape[:2])
    return 0.001 * out * into


def test_times_are_those_of_the_layers_that_hold_the_units():
    latency = bp.Price.latency(network(), EXAMPLE, timer=by_macs)
    rows = 2
    assert latency.milliseconds == pytest.approx(
        {
            "0": 0.001 * rows * (9 * 16 + 16 * 32),  # a filter: 16 positions, and its 16 features
            "2": 0.001 * rows * 32,
            "3": 0.001 * rows * (256 + 2),
        }
    )
    assert latency.dense == pytest.approx(0.001 * rows * (9 * 16 * 16 + 256 * 32 + 32 * 2))
    widths = {name: [width for width, _ in points] for name, points in latency.measured.items()}
    assert widths == {"0": [8, 16], "2": [64, 128, 192, 256], "3": [8, 16, 24, 32]}


def test_widths_are_whole_multiples_of_the_rounding():
    latency = bp.Price.latency(network(), EXAMPLE, timer=by_macs, rounding={"3": 5, "*": 1})
    assert [width for width, _ in latency.measured["3"]] == [10, 20, 25, 32]
    assert [width for width, _ in latency.measured["0"]] == [4, 8, 12, 16]


def test_a_warning_where_fewer_units_take_as_long():
    narrow = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    message = r"Group '0'.*cpu \(4 units take 1.28 ms and 16 take 1.28 ms\).*from_cost"
    with pytest.warns(LatencyWarning, match=message) as caught:
        latency = bp.Price.latency(narrow, torch.zeros(1, 64), timer=in_blocks, rounding=4)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert latency.milliseconds["0"] == 0.0 and latency.milliseconds["input"] > 0
    prices = latency.flattening(nats_per_millisecond=10.0, least=0.1).price_table
    assert prices == pytest.approx({"input": 10 * latency.milliseconds["input"], "0": 0.1})


def test_a_warning_where_there_is_but_one_width():
    with pytest.warns(LatencyWarning, match="only 16 units were measured"):
        bp.Price.latency(network(), EXAMPLE, timer=by_macs, rounding={"0": 16, "*": 8})


def test_the_network_is_left_alone_and_its_prices_can_be_used():
    net = network().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    latency = bp.Price.latency(net, EXAMPLE, timer=by_macs)
    assert net.training and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    prior = bp.priors.BernoulliGates(latency.flattening(nats_per_millisecond=10.0))
    gated = bp.gate(net, EXAMPLE, prior=prior, likelihood=bp.Categorical(rows=10))
    assert gated.gate_prior(gated.groups[0]).event_shape == (16,)


def test_the_shortest_is_taken_after_passes_that_do_not_count():
    durations = iter([0.5, 9.0, 9.0, 1.0, 2.0, 50.0, 3.0, 2.0])  # the first three warm up
    ticks = itertools.chain.from_iterable((0.0, seconds) for seconds in durations)
    layer = nn.Linear(2, 2)
    assert fastest_milliseconds(layer, torch.zeros(1, 2), repeats=5, clock=lambda: next(ticks)) == 1000.0


def test_the_real_clock_gives_positive_times():
    assert 0 < fastest_milliseconds(nn.Linear(64, 64), torch.zeros(8, 64), repeats=3) < 1000


@pytest.mark.parametrize("rounding", [0, -8, 1.5, True])
def test_a_rounding_that_is_no_number_of_units(rounding):
    with pytest.raises(PriorError, match=f"rounding of group '0' is {rounding}"):
        bp.Price.latency(network(), EXAMPLE, timer=by_macs, rounding=rounding)


@pytest.mark.parametrize("settings", [(0.0, 0.1), (10.0, 0.0), (-1.0, 0.1)])
def test_prices_have_to_be_positive(settings):
    with pytest.raises(PriorError, match=r"nats_per_millisecond=.*least="):
        bp.Price.latency(network(), EXAMPLE, timer=by_macs).flattening(*settings)


class Residual(nn.Module):
    """A stream of 16 and a section of 32 hidden units beside it."""

    def __init__(self):
        super().__init__()
        self.stem, self.up, self.down, self.head = (
            nn.Linear(4, 16), nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 3),
        )  # fmt: skip

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.down(self.up(x).relu()))


def test_networks_that_are_no_chains_are_timed_as_a_whole():
    def by_size(network, x):
        assert not network.training
        return 0.001 * sum(p.numel() for p in network.parameters())

    network = Residual()
    latency = bp.Price.latency(network, torch.zeros(2, 4), timer=by_size)
    whole = sum(p.numel() for p in network.parameters())
    assert latency.dense == pytest.approx(0.001 * whole)
    stem, up = 4 + 1 + 32 + 32 + 1 + 3, 16 + 1 + 16
    section = 32 * 17 + 16 * 33
    expected = {"stem": 0.001 * stem, "up": 0.001 * up, "layers": 0.001 * section}
    assert latency.milliseconds == pytest.approx(expected)
    assert [width for width, _ in latency.measured["up"]] == [8, 16, 24, 32]


def test_sections_are_timed_with_none_of_them_too():
    def timer(network, x):
        return 1.0 + 0.001 * sum(p.numel() for p in network.parameters())

    latency = bp.Price.latency(Residual(), torch.zeros(2, 4), timer=timer)
    assert [sections for sections, _ in latency.measured["layers"]] == [0, 1]
    assert latency.milliseconds["layers"] == pytest.approx(0.001 * (32 * 17 + 16 * 33))
