"""Steps by classes of units are those that looking at every unit gives, and more units take no more looks."""

import itertools
import random

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.structure import ExpectedCost
from bayesprune.structure.classes import Classes
from bayesprune.svi import walk
from bayesprune.svi.fill import _Back, fill
from bayesprune.svi.fitter import Fitter
from bayesprune.svi.trim import trim
from bayesprune.svi.within import within
from tests.structure.graph.networks import CASES
from tests.svi import one_by_one


def dense(rng):
    widths = [rng.randint(1, 30) for _ in range(rng.randint(2, 5))]
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=rng.random() < 0.7), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], rng.randint(1, 5))), torch.zeros(1, widths[0])


def alternating(rng):
    """Narrow and wide layers by turns: few large units among many small ones."""
    few, many = rng.randint(1, 4), rng.randint(20, 60)
    widths = [few, many, few, many, 2]
    layers = [layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1]), torch.zeros(1, few)


def flattened(rng):
    first, second, hidden = rng.randint(1, 5), rng.randint(1, 6), rng.randint(1, 20)
    network = nn.Sequential(
        nn.Conv2d(1, first, 3), nn.ReLU(), nn.Conv2d(first, second, 3), nn.BatchNorm2d(second), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(second * 16, hidden), nn.ReLU(), nn.Linear(hidden, 2),
    )  # fmt: skip
    return network, torch.zeros(2, 1, 12, 12)


def channels(rng):
    """Filters with few features each: they are emptied all the time, and some must stay."""
    first, second = rng.randint(1, 8), rng.randint(3, 8)
    network = nn.Sequential(
        nn.Conv2d(1, first, 1), nn.ReLU(), nn.Conv2d(first, second, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(second * 4, rng.randint(1, 4)),
    )  # fmt: skip
    return network, torch.zeros(2, 1, 2, 2)


class Stream(nn.Module):
    """Sections beside shortcuts, of two layers or of one that reads and writes the same units."""

    def __init__(self, rng):
        super().__init__()
        width = rng.randint(2, 10)
        self.stem, self.sections = nn.Linear(5, width), nn.ModuleList()
        for _ in range(rng.randint(1, 3)):
            inner = rng.randint(2, 10)
            two = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width))
            self.sections.append(
                two if rng.random() < 0.6 else nn.Sequential(nn.Linear(width, width), nn.Tanh())
            )
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        x = self.stem(x)
        for section in self.sections:
            x = x + section(x)
        return self.head(x)


def residual(rng):
    return Stream(rng), torch.zeros(2, 5)


def gated_for(network, example, **shares):
    return bp.gate(network, example, prior=bp.Budget(**shares), likelihood=bp.Categorical(rows=100))


def drawn_shares(rng, least=0.2):
    macs, params = rng.uniform(least, 0.95), rng.uniform(least, 0.95)
    return rng.choice([{"macs": macs}, {"params": params}, {"macs": macs, "params": params}])


def drawn_gain(rng, units):
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    gain = torch.randn(units, generator=generator, dtype=torch.double) + rng.choice([0, 1, 3])
    kind = rng.choice(["distinct", "ties", "equal", "zeros"])
    if kind == "ties":
        return (2 * gain).round() / 2
    if kind == "equal":
        return torch.full_like(gain, rng.choice([1.0, 0.3, -0.7]))
    return torch.where(torch.rand(units, generator=generator) < 0.5, 0.0, gain) if kind == "zeros" else gain


def drawn_mask(rng, like, share):
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    return torch.rand(len(like), generator=generator) < share


AIMS = [
    (1.0, 0.98, False),
    (1.0, 1.0, True),
    (1.3, 1.0, True),
    (1.5, 1.0, False),
    (1.0, 0.9, False),
    (1.3, 0.5, True),
]


def check_same(gated, rng, times):
    """Both ways from the whole network down, and up again from a part of what that left."""
    for _ in range(times):
        gain = drawn_gain(rng, len(gated.alive))
        ours = Fitter(gated, gated.prior, gain, least=rng.choice([1, 1, 2, 3]))
        candidates = drawn_mask(rng, gain, rng.choice([0.6, 1.0]))
        high, low, strict = rng.choice(AIMS)
        keep = trim(ours, gated.alive, candidates, high=high, low=low, strict=strict)
        slow = one_by_one.trim(ours, gated.alive, candidates, high=high, low=low, strict=strict)
        assert torch.equal(keep, slow)
        start = ours.close(keep & drawn_mask(rng, gain, rng.choice([0.2, 0.6, 0.9])))
        if start is not None and ours.ratio(start) <= 1:
            assert torch.equal(fill(ours, start, candidates), one_by_one.fill(ours, start, candidates))


@pytest.mark.parametrize("draw", [dense, alternating, flattened, channels, residual])
@pytest.mark.parametrize("seed", range(8))
def test_classes_give_the_units_that_looking_at_every_unit_gives(draw, seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    network, example = draw(rng)
    try:
        gated = gated_for(network, example, **drawn_shares(rng))
    except bp.errors.PriorError:  # out of reach for a network as small as this one
        gated = gated_for(network, example, macs=0.98)
    check_same(gated, rng, times=6)


@pytest.mark.parametrize(
    "name",
    ["LiteralView", "SharedTwice", "DenseConcat", "ResNeXtBlock", "TiedEmbedding", "EinsumAttention",
     "Recurrent", "UNet", "grouped_by_four", "vision_transformer_heads_from_shape"],
)  # fmt: skip
def test_classes_give_the_same_units_in_graphs(name):
    rng, case = random.Random(name), CASES[name]
    gated = gated_for(case.network(torch.float32), *case.batch(2, torch.float32), **drawn_shares(rng, 0.85))
    check_same(gated, rng, times=4)


@pytest.mark.parametrize("params", [0.3, 0.35, 0.4, 0.402, 0.45, 0.5])
def test_where_layers_tie_rounding_decides_as_it_does_for_every_unit(params):
    widths = [3, 5, 3, 5, 3, 7]
    layers = [layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    gated = gated_for(nn.Sequential(*layers[:-1]), torch.zeros(1, 3), params=params)
    everyone = torch.ones_like(gated.alive)
    for value in (0.3, 0.7, 1.0):
        ours = Fitter(gated, gated.prior, torch.full((len(everyone),), value, dtype=torch.double), 1)
        keep = trim(ours, everyone, everyone, high=1.0, low=0.5, strict=False)
        slow = one_by_one.trim(ours, everyone, everyone, high=1.0, low=0.5, strict=False)
        assert torch.equal(keep, slow)


def test_a_feature_does_not_come_back_alone_where_its_filter_is_gone():
    gated = gated_for(*flattened(random.Random(0)), macs=0.5)
    everyone, parts = torch.ones_like(gated.alive), gated.slices()
    back = _Back(Fitter(gated, gated.prior, everyone.double(), 1), everyone)
    without = everyone.clone()
    without[parts["2"].start] = False
    assert back.plain(parts["6"].start, 1, everyone)
    assert not back.plain(parts["6"].start, 1, without)


def test_the_last_feature_of_a_filter_stays_where_the_filters_would_become_too_few():
    network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Flatten(), nn.Linear(12, 2))
    gated = gated_for(network, torch.zeros(1, 1, 2, 2), macs=0.5)
    filters, features = (gated.slices()[name] for name in ("0", "1"))
    gain = torch.full((len(gated.alive),), 1e3, dtype=torch.double)
    gain[features] = torch.arange(1.0, 13.0, dtype=torch.double)  # those of the first two filters go first
    ours, everyone = Fitter(gated, gated.prior, gain, least=2), torch.ones_like(gated.alive)
    keep = trim(ours, gated.alive, everyone, high=0.6, low=0.3, strict=True)
    assert torch.equal(keep, one_by_one.trim(ours, gated.alive, everyone, high=0.6, low=0.3, strict=True))
    assert keep[filters].tolist() == [False, True, True]
    assert keep[features].tolist() == [*[False] * 7, True, *[False] * 3, True]


@pytest.mark.parametrize("draw", [dense, flattened, residual])
def test_counts_give_the_cost_and_what_every_unit_adds(draw):
    rng = random.Random(1)
    gated = gated_for(*draw(rng), macs=0.98)
    classes, cost = Classes.of(gated.network), ExpectedCost(gated.network)
    for _ in range(10):
        keep = Fitter(gated, gated.prior, torch.ones(len(gated.alive)), 1).close(
            drawn_mask(rng, gated.alive, 0.8)
        )
        if keep is None:
            continue
        theta = keep.double().requires_grad_()
        expected = cost(gated.by_group(theta))
        totals, out = classes.cost(classes.count(keep.numpy()), -1)
        _, back = classes.cost(classes.count(keep.numpy()), 1)
        for kind, value in enumerate((expected.macs, expected.parameters)):
            (slope,) = torch.autograd.grad(value, theta, retain_graph=True)
            assert totals[kind] == value.item()
            adds = torch.from_numpy(back[kind])[classes.labels]
            adds[keep] = torch.from_numpy(out[kind])[classes.labels][keep]
            assert torch.equal(adds, slope)


@pytest.mark.parametrize("draw", [dense, channels, residual])
def test_running_costs_are_those_of_what_is_kept(draw, monkeypatch):
    """Also where a class has a part in its own costs, and they bend: filters that read what they add to."""
    steps, bent, count = 0, 0, walk._Walk._count

    def checked(self, of, number):
        nonlocal steps, bent
        bent += bool(self._change(of)[:, of].any())
        count(self, of, number)
        totals, adds = self._classes.cost(self._counts, self._step)
        assert totals == pytest.approx(self._totals) and adds == pytest.approx(self._adds)
        steps += number

    monkeypatch.setattr(walk._Walk, "_count", checked)
    rng = random.Random(1)
    torch.manual_seed(1)
    network, example = draw(rng)
    gated = gated_for(network, example, macs=0.9)
    gain = drawn_gain(rng, len(gated.alive))
    everything = torch.ones_like(gated.alive)
    keep = trim(
        Fitter(gated, gated.prior, gain, least=1), gated.alive, everything, high=1.0, low=0.3, strict=False
    )
    few = Fitter(gated, gated.prior, gain, least=1).close(keep & (torch.rand(len(keep)) < 0.7))
    fill(Fitter(gated, gated.prior, gain, least=1), few, everything)
    assert steps >= 3 and (bent or draw is not residual)


def wide(units):
    return nn.Sequential(nn.Linear(4, units), nn.ReLU(), nn.Linear(units, 2)), torch.zeros(1, 4)


def many_channels(units):
    network = nn.Sequential(nn.Conv2d(1, units // 5, 1), nn.Flatten(), nn.Linear(units // 5 * 4, 2))
    return network, torch.zeros(1, 1, 2, 2)


@pytest.mark.parametrize("build, sizes", [(wide, (1_000, 16_000)), (many_channels, (500, 2_000))])
def test_looks_at_all_units_do_not_become_more_with_the_units(build, sizes, monkeypatch):
    calls = []

    def counted(owner, name):
        original = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *given, **named: (calls.append(name), original(*given, **named))[1]
        )

    counted(Fitter, "slopes")
    counted(Fitter, "close")
    counted(walk._Walk, "_begin")
    counted(walk._Walk, "_scores")
    made = {}
    for units in sizes:
        gated = gated_for(*build(units), macs=0.5)
        generator = torch.Generator().manual_seed(0)
        gain = torch.randn(len(gated.alive), generator=generator, dtype=torch.double) + 1
        ours = Fitter(gated, gated.prior, gain, 1)
        calls.clear()
        keep = within(ours, gated.alive)
        assert 0.98 <= ours.ratio(keep) <= 1 and int((~keep).sum()) > units / 10
        made[units] = {name: calls.count(name) for name in ("slopes", "close", "_begin", "_scores")}
    few, many = made.values()
    assert many["slopes"] <= few["slopes"] + 5 and many["_begin"] <= few["_begin"] + 5
    assert many["close"] <= few["close"] + 10
    if build is wide:
        assert many["_scores"] < 3 * few["_scores"] and many["_scores"] < 1_000, made
