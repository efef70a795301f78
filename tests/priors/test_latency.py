"""Price.latency: milliseconds a unit from a timer, and a warning where narrower is not faster."""

import itertools
import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import LatencyWarning, PriorError
from bayesprune.priors.latency import Latency, fastest_milliseconds


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


def narrow():
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))


def test_a_warning_where_fewer_units_take_as_long():
    message = (
        "Group '0': fewer units are not measurably faster on cpu (4 units take 1.28 ms and 16 take 1.28 ms), "
        "so its units get the least price. Time larger batches, lower rounding=, or price this group by "
        "MACs: bp.Price.from_cost(nats=..., compute=1.0)."
    )
    with pytest.warns(LatencyWarning, match=f"^{re.escape(message)}$") as caught:
        latency = bp.Price.latency(narrow(), torch.zeros(1, 64), timer=in_blocks, rounding=4)
    assert len(caught) == 1
    assert latency.milliseconds["0"] == 0.0 and latency.milliseconds["input"] > 0
    prices = latency.flattening(nats_per_millisecond=10.0, least=0.1).price_table
    assert prices == pytest.approx({"input": 10 * latency.milliseconds["input"], "0": 0.1})


def test_the_warning_points_at_who_asked():
    with pytest.warns(LatencyWarning) as caught:
        bp.Price.latency(narrow(), torch.zeros(1, 64), timer=in_blocks, rounding=4)
    assert caught[0].filename == __file__


def test_a_warning_where_there_is_but_one_width():
    message = "Group '0': fewer units are not measurably faster on cpu (only 16 units were measured), so its"
    with pytest.warns(LatencyWarning, match=f"^{re.escape(message)}"):
        latency = bp.Price.latency(network(), EXAMPLE, timer=by_macs, rounding={"0": 16, "*": 8})
    assert latency.milliseconds["0"] == 0.0


def test_a_group_of_a_few_units_is_timed_down_to_one():
    few = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    latency = bp.Price.latency(few, torch.zeros(1, 4), timer=by_weights, rounding=1, exclude="input")
    assert [width for width, _ in latency.measured["0"]] == [1, 2, 3]


def test_less_than_a_twentieth_of_the_time_is_no_gain():
    """From 8 units to 32: 24 of them save what 24 slopes are."""

    def machine(per_unit):
        return lambda layer, x: 10.0 + per_unit * layer.weight.shape[0]

    fits = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    enough, few = (0.05 * 20 / (24 - 0.05 * 34) * factor for factor in (1.01, 0.99))
    latency = bp.Price.latency(fits, torch.zeros(1, 4), timer=machine(enough), exclude=("input",))
    assert latency.milliseconds == pytest.approx({"0": enough})
    with pytest.warns(LatencyWarning, match="Group '0'"):
        latency = bp.Price.latency(fits, torch.zeros(1, 4), timer=machine(few), exclude=("input",))
    assert latency.milliseconds == {"0": 0.0}


def test_the_fastest_of_three_turns_counts():
    spoilt = iter(
        [3.0, 9.0, 3.0, 3.0, 5.0, 3.0] + 100 * [3.0]
    )  # two layers of the dense network, three times
    latency = bp.Price.latency(
        nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)),
        torch.zeros(1, 4),
        timer=lambda layer, x: next(spoilt) + layer.weight.numel(),
        exclude=("input",),
        rounding=1,
    )
    assert latency.dense == 3.0 + 32 + 3.0 + 16
    assert latency.milliseconds["0"] == pytest.approx(6.0) and latency.device == "cpu"


def test_prices_are_milliseconds_at_their_rate_and_never_nothing():
    latency = Latency({"a": 0.5, "b": 0.0}, 1.0, {}, "cpu")
    assert latency.flattening(10.0).price_table == {"a": 5.0, "b": 0.1}
    assert latency.flattening(10.0, least=7.0).price_table == {"a": 7.0, "b": 7.0}


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


def test_fifteen_passes_count_by_default():
    ticks = itertools.count()
    fastest_milliseconds(nn.Linear(2, 2), torch.zeros(1, 2), clock=lambda: float(next(ticks)))
    assert next(ticks) == 2 * (3 + 15)


def test_the_device_of_the_input_is_waited_for_before_the_clock_is_read(monkeypatch):
    happened = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: happened.append(f"wait for {device}"))
    x = SimpleNamespace(is_cuda=True, device="cuda:1")

    def clock():
        happened.append("clock")
        return 0.0

    fastest_milliseconds(lambda _: happened.append("pass"), x, repeats=1, clock=clock)
    assert happened == 4 * ["wait for cuda:1", "clock", "pass", "wait for cuda:1", "clock"]


def test_the_real_clock_gives_positive_times():
    assert 0 < fastest_milliseconds(nn.Linear(64, 64), torch.zeros(8, 64), repeats=3) < 1000


@pytest.mark.parametrize("rounding", [0, -8, 1.5, True])
def test_a_rounding_that_is_no_number_of_units(rounding):
    message = f"rounding of group '0' is {rounding}: give a whole number of units, 1 or more."
    with pytest.raises(PriorError, match=f"^{re.escape(message)}$"):
        bp.Price.latency(network(), EXAMPLE, timer=by_macs, rounding=rounding)


@pytest.mark.parametrize("settings", [(0.0, 0.1), (10.0, 0.0), (-1.0, 0.1)])
def test_prices_have_to_be_positive(settings):
    rate, least = settings
    message = (
        f"flattening(nats_per_millisecond={rate}, least={least}): both must be positive finite numbers. Give "
        "for example 100.0 and 0.1."
    )
    with pytest.raises(PriorError, match=f"^{re.escape(message)}$"):
        Latency({"a": 1.0}, 1.0, {}, "cpu").flattening(*settings)


@pytest.mark.parametrize(
    "build, rounding, message",
    [
        (lambda: narrow(), {"9": 2, "*": 1}, "rounding names '9', and no group is called so."),
        (lambda: narrow(), {"*": 1, "[0s]*": 2}, "rounding: '[0s]*' comes after '*', which takes all"),
        (lambda: narrow(), {"inp*": 2}, "No rounding for '0': the table has 'inp*'."),
        (lambda: Residual(), {"9": 2, "*": 1}, "rounding names '9', and no group is called so."),
        (lambda: Residual(), {"up_*": 2}, "No rounding for 'stem': the table has 'up_*'."),
    ],
)
def test_roundings_by_name_are_those_of_groups(build, rounding, message):
    with pytest.raises(PriorError, match=f"^{re.escape(message)}"):
        bp.Price.latency(build(), torch.zeros(2, 64), timer=by_weights, rounding=rounding)


def test_roundings_may_name_groups_that_are_left_whole():
    rounding = {"input": 7, "*": 4}
    latency = bp.Price.latency(
        narrow(), torch.zeros(2, 64), timer=by_weights, rounding=rounding, exclude="input"
    )
    assert [width for width, _ in latency.measured["0"]] == [4, 8, 12, 16] and len(latency.measured) == 1


def by_weights(network, x):
    return 0.001 * sum(p.numel() for p in network.parameters())


class Residual(nn.Module):
    """A stream of 16 and sections of 32 hidden units beside it."""

    def __init__(self, sections=1, inputs=64):
        super().__init__()
        self.stem, self.head = nn.Linear(inputs, 16), nn.Linear(16, 3)
        self.up = nn.ModuleList(nn.Linear(16, 32) for _ in range(sections))
        self.down = nn.ModuleList(nn.Linear(32, 16) for _ in range(sections))

    def forward(self, x):
        x = self.stem(x)
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(up(x).relu())
        return self.head(x)


def test_widths_of_what_is_no_chain_are_by_name_too_and_sections_go_one_by_one():
    rounding = {"up_0": 5, "up_1": 7, "*": 4}  # up_1 is left whole
    latency = bp.Price.latency(
        Residual(4), torch.zeros(2, 64), timer=by_weights, rounding=rounding, exclude=["up_[123]"]
    )
    widths = {name: [width for width, _ in points] for name, points in latency.measured.items()}
    assert widths == {"stem": [4, 8, 12, 16], "up_0": [10, 20, 25, 32], "layers": [0, 1, 2, 3, 4]}


def test_a_warning_for_each_group_of_what_is_no_chain():
    with pytest.warns(LatencyWarning) as caught:
        latency = bp.Price.latency(Residual(), torch.zeros(2, 64), timer=lambda network, x: 1.0)
    assert latency.milliseconds == dict.fromkeys(["stem", "up_0", "layers"], 0.0) and latency.device == "cpu"
    for warning, name, narrowest, whole in zip(
        caught, latency.milliseconds, (8, 8, 0), (16, 32, 1), strict=True
    ):
        assert str(warning.message).startswith(
            f"Group '{name}': fewer units are not measurably faster on cpu "
            f"({narrowest} units take 1 ms and {whole} take 1 ms), so its"
        )


@pytest.mark.parametrize("build", [lambda: narrow(), lambda: Residual()], ids=["chain", "graph"])
def test_everything_is_timed_where_it_was_asked_for(build):
    def timer(layer, x):
        assert x.is_meta and all(p.is_meta for p in layer.parameters()) and not layer.training
        return by_weights(layer, x)

    latency = bp.Price.latency(build(), torch.zeros(2, 64), "meta", timer=timer)
    assert latency.device == "meta" and latency.milliseconds


def test_networks_that_are_no_chains_are_timed_as_a_whole():
    def by_size(network, x):
        assert not network.training
        return 0.001 * sum(p.numel() for p in network.parameters())

    network = Residual(inputs=4)
    latency = bp.Price.latency(network, torch.zeros(2, 4), timer=by_size)
    whole = sum(p.numel() for p in network.parameters())
    assert latency.dense == pytest.approx(0.001 * whole)
    stem, up = 4 + 1 + 32 + 32 + 1 + 3, 16 + 1 + 16
    section = 32 * 17 + 16 * 33
    expected = {"stem": 0.001 * stem, "up_0": 0.001 * up, "layers": 0.001 * section}
    assert latency.milliseconds == pytest.approx(expected)
    assert [width for width, _ in latency.measured["up_0"]] == [8, 16, 24, 32]


def test_sections_are_timed_with_none_of_them_too():
    def timer(network, x):
        return 1.0 + 0.001 * sum(p.numel() for p in network.parameters())

    latency = bp.Price.latency(Residual(inputs=4), torch.zeros(2, 4), timer=timer)
    assert [sections for sections, _ in latency.measured["layers"]] == [0, 1]
    assert latency.milliseconds["layers"] == pytest.approx(0.001 * (32 * 17 + 16 * 33))
