"""Sizes that a budget holds: equal over layers, in multiples, at every removal, with the most evidence."""

import itertools
import warnings

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import BudgetWarning, CheckpointError, PriorError
from bayesprune.structure import ExpectedCost
from bayesprune.structure.kinds import Kind, allowed, kinds, least_sizes, role
from bayesprune.svi import equal as decided
from bayesprune.svi.equal import equal, together
from bayesprune.svi.fitter import Fitter
from tests.svi.fits import FAST


class Block(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x):
        return x + self.down(self.up(x).relu())


class Stack(nn.Module):
    """Blocks that are alike beside a stream."""

    def __init__(self, width=6, inner=7, blocks=3):
        super().__init__()
        self.stem, self.blocks = (
            nn.Linear(4, width),
            nn.ModuleList(Block(width, inner) for _ in range(blocks)),
        )
        self.head = nn.Linear(width, 3)

    def forward(self, x):  # (B, 4)
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Heads(nn.Module):
    """Attention: four heads of width 2, with a bias of each head's own; and a narrow layer behind it."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.bias = nn.Embedding(5, 4)
        self.narrow, self.head = nn.Linear(8, 3), nn.Linear(3, 2)

    def forward(self, x):  # (B, 5, 8)
        q, k, v = (f(x).unflatten(-1, (-1, 2)).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) + self.bias.weight.T[:, None]  # (B, heads, 5, 5)
        y = self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return self.head(self.narrow(y.mean(1)).relu())


def gated_for(network=None, example=None, layers="none", exclude=(), **settings):
    torch.manual_seed(0)
    example = torch.zeros(1, 4) if example is None else example
    likelihood = bp.Categorical(rows=96)
    return bp.gate(
        network or Stack(), example, prior=bp.Budget(**settings), likelihood=likelihood,
        layers=layers, exclude=exclude,
    )  # fmt: skip


def drawn_gain(gated, seed, shift=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(gated.alive), generator=generator, dtype=torch.double) + shift


def fitter(gated, gain, least=1):
    return Fitter(gated, gated.prior, gain, least)


def first_units(gated, **numbers):
    """So many units of each group, from its first on."""
    found = torch.zeros_like(gated.alive)
    for name, number in numbers.items():
        start = gated.slices()[name].start
        found[start : start + number] = True
    return found


@pytest.mark.parametrize(
    "name, of",
    [
        ("encoder_layer_10_intermediate_dense", "encoder_layer_*_intermediate_dense"),
        ("encoder_block_0_layer_1_wi", "encoder_block_*_layer_*_wi"),
        ("0", "0"),
        ("layers_3", "layers_3"),
        ("conv1", "conv1"),
        ("layer1_0_conv2", "layer1_*_conv2"),
    ],
)
def test_a_role_is_a_name_without_the_numbers_of_repeated_layers(name, of):
    assert role(name) == of


def test_kinds_are_groups_of_one_role_and_size():
    gated = gated_for(macs=0.5, uniform=True)
    assert gated.prior.kinds == (
        Kind(("stem",), 6, 1),
        Kind(("blocks_0_up", "blocks_1_up", "blocks_2_up"), 7, 1),
    )
    other = Stack()
    other.blocks[1] = Block(6, 5)  # of another size: it cannot be equal
    sizes = {kind.groups: kind.size for kind in gated_for(other, macs=0.5, uniform=True).prior.kinds}
    assert sizes == {("stem",): 6, ("blocks_0_up", "blocks_2_up"): 7, ("blocks_1_up",): 5}
    assert len(gated_for(macs=0.5, multiple_of=2).prior.kinds) == 4  # each by itself
    assert gated_for(macs=0.5).prior.kinds == ()
    chain = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))
    assert all(len(k.groups) == 1 for k in gated_for(chain, macs=0.5, uniform=True).prior.kinds)


def test_patterns_make_one_kind_of_what_they_stand_for():
    network = Stack(width=7)
    held = gated_for(network, macs=0.5, uniform=["stem", "blocks_[01]_up"]).prior.kinds
    assert {kind.groups for kind in held} == {("stem",), ("blocks_0_up", "blocks_1_up"), ("blocks_2_up",)}
    assert len(gated_for(network, macs=0.5, uniform="*").prior.kinds) == 1
    with pytest.raises(PriorError, match=r"uniform names 'blocks_\*_upp'.*Did you mean 'blocks_2_up'"):
        gated_for(network, macs=0.5, uniform=["blocks_*_upp"])
    with pytest.raises(
        PriorError, match=r"'\*' stands for groups of sizes that have no divisor.*'stem' has 6, 'blo"
    ):
        gated_for(macs=0.5, uniform=["*"])
    with pytest.raises(PriorError, match="uniform names 'blocks_1_up' 2 times"):
        gated_for(macs=0.5, uniform=["blocks_*", "blocks_1_up"])


def test_what_follows_a_filter_may_not_leave_a_size_that_is_none():
    """Two filters and two features are dead: where one of these is of the filters, seven would stay."""
    conv = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    gated = gated_for(conv, torch.zeros(1, 1, 4, 4), macs=0.45, multiple_of=2)
    parts, gain, dead = gated.slices(), torch.ones(len(gated.alive)).double(), torch.zeros_like(gated.alive)
    filters, features = (parts[group.name] for group in gated.groups[:2])
    for first, second, left in ((0, 4, 8), (8, 12, 6), (0, 15, 16)):
        dead[:] = False
        dead[[filters.start, filters.start + 1]] = True
        dead[[features.start + first, features.start + second]] = True
        going = together(fitter(gated, gain), gated.prior.kinds, gated.alive, dead)
        assert int((~going)[features].sum()) == left and int(going[filters].sum()) == (2 if left < 16 else 0)


def test_groups_of_several_sizes_keep_one_share():
    (kind,) = gated_for(Stack(4, 6), macs=0.5, uniform=[("stem", "blocks_*_up")]).prior.kinds
    assert kind == Kind(("stem", "blocks_0_up", "blocks_1_up", "blocks_2_up"), 2, 1, (2, 3, 3, 3))
    assert [kind.of(name) for name in kind.groups] == [2, 3, 3, 3]
    assert least_sizes([kind], 3) == {"stem": 4, "blocks_0_up": 6, "blocks_1_up": 6, "blocks_2_up": 6}
    masks = {"stem": torch.arange(4) < 2, **{f"blocks_{i}_up": torch.arange(6) < 3 for i in range(3)}}
    assert allowed([kind], masks) and not allowed([kind], masks | {"stem": torch.arange(4) < 3})
    assert not allowed([kind], {name: torch.arange(len(mask)) < 1 for name, mask in masks.items()})
    assert kinds(gated_for(Stack(12, 8), macs=0.5).network, [list(kind.groups)], 4) == (
        Kind(kind.groups, 4, 4, (3, 2, 2, 2)),
    )


def test_dead_units_of_one_share_go_together():
    gated = gated_for(Stack(4, 6), macs=0.4, uniform=[("stem", "blocks_*_up")])
    parts, gain = gated.slices(), drawn_gain(gated, 1)
    dead = first_units(gated, blocks_0_up=5, blocks_1_up=3, blocks_2_up=4, stem=2)
    going = together(fitter(gated, gain), gated.prior.kinds, gated.alive, dead)
    gone = {name: int(mask.sum()) for name, mask in gated.by_group(going).items()}
    assert gone == {"stem": 2, "blocks_0_up": 3, "blocks_1_up": 3, "blocks_2_up": 3}
    dead[parts["stem"].start] = False
    assert not bool(together(fitter(gated, gain), gated.prior.kinds, gated.alive, dead).any())


@pytest.mark.parametrize("uniform", [3, None, [2], ("stem", 1), [()], [("stem", 1)]], ids=str)
def test_uniform_must_be_a_flag_or_names(uniform):
    with pytest.raises(PriorError, match=r"uniform=.*must be True, False, or names"):
        bp.Budget(macs=0.5, uniform=uniform)


@pytest.mark.parametrize("number", [0, -8, 8.0, True, "8"], ids=str)
def test_multiple_of_must_be_a_whole_number(number):
    with pytest.raises(PriorError, match=r"multiple_of=.* must be a whole number, at least 1"):
        bp.Budget(macs=0.5, multiple_of=number)


def test_sizes_of_a_kind_are_multiples_or_all_of_it():
    kind = Kind(("a",), 20, 8)
    assert kind.sizes(1, 20) == [8, 16, 20] and kind.sizes(9, 19) == [16] and kind.sizes(30, 20) == [20]
    assert Kind(("a",), 5, 8).sizes(1, 5) == [5]
    assert [kind.up(n) for n in (1, 8, 9, 17, 20)] == [8, 8, 16, 20, 20]
    ones = {n: torch.arange(20) < m for n, m in (("a", 16), ("b", 16), ("c", 0))}
    both = (Kind(("a", "b", "c"), 20, 8),)
    assert allowed(both, ones) and not allowed(both, ones | {"b": torch.arange(20) < 8})
    assert not allowed((Kind(("a",), 20, 3),), ones)


def test_a_unit_of_several_columns_makes_a_multiple_sooner():
    """Heads of width 2 make 4 columns by twos, whatever else belongs to them."""
    gated = gated_for(Heads(), torch.zeros(1, 5, 8), macs=0.7, multiple_of=4)
    steps = {kind.groups[0]: (kind.size, kind.step) for kind in gated.prior.kinds}
    assert steps["q"] == (4, 2) and steps["narrow"] == (3, 4)
    assert kinds(gated.network, False, 2)[[k.groups[0] for k in gated.prior.kinds].index("q")].step == 1
    conv = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))
    held = gated_for(conv, torch.zeros(1, 1, 4, 4), macs=0.7, multiple_of=4, exclude=["2"]).prior.kinds
    assert held == (Kind(("0",), 8, 4),)  # four columns of the reader, and one filter


def reference(gated, gain):
    """The best choice of sizes, by trying all of them on networks that are cut."""
    parts, costs, best = gated.slices(), ExpectedCost(gated.network), (-1.0, 0.0)
    for sizes in itertools.product(*(kind.sizes(1, kind.size) for kind in gated.prior.kinds)):
        keep = torch.zeros(len(gain), dtype=torch.bool)
        for kind, size in zip(gated.prior.kinds, sizes, strict=True):
            for name in kind.groups:
                keep[parts[name].start + gain[parts[name]].topk(size * kind.of(name)).indices] = True
        expected = costs(gated.by_group(keep.double()))
        shares = torch.stack([expected.macs, expected.parameters]) / gated.prior.dense
        used = float((shares / gated.prior.budget.nan_to_num(torch.inf)).max())
        if used <= 1:
            best = max(best, (float(gain[keep].clamp_min(0).sum()), used))
    return best


SETTINGS = [
    {"macs": 0.5, "uniform": True},
    {"macs": 0.35, "params": 0.5, "uniform": True},
    {"params": 0.6, "uniform": True, "multiple_of": 2},
    {"macs": 0.7, "multiple_of": 3},
    {"macs": 0.4, "uniform": ["blocks_[01]_up"]},
    {"macs": 0.6, "uniform": [("stem", "blocks_[01]_up")]},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_choice_is_the_best_of_all(settings, monkeypatch):
    gated = gated_for(Stack(4, 6) if isinstance(settings.get("uniform"), list) else Stack(5, 5), **settings)
    for seed, shift in ((0, 1.0), (1, 1.0), (2, -0.5)):
        gain = drawn_gain(gated, seed, shift)
        expected, used = reference(gated, gain)
        for most in (10**6, 0):  # all choices are compared, or units go in steps
            monkeypatch.setattr(decided, "ALL", most)
            fit = fitter(gated, gain)
            keep = equal(fit, gated.prior.kinds, gated.alive)
            assert allowed(gated.prior.kinds, gated.by_group(keep)) and fit.ratio(keep) <= 1
            kept = float(gain[keep].clamp_min(0).sum())
            if most:
                assert (kept, fit.ratio(keep)) == pytest.approx((expected, used))
            else:
                assert kept >= 0.95 * expected


@pytest.mark.parametrize("most", [10**6, 0])  # all choices are compared, or units go in steps
def test_features_go_with_their_filters_and_sizes_are_allowed_all_the_same(most, monkeypatch):
    monkeypatch.setattr(decided, "ALL", most)
    conv = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2)
    )
    gated = gated_for(conv, torch.zeros(1, 1, 4, 4), macs=0.45, multiple_of=2)
    for seed in range(3):
        gain = drawn_gain(gated, seed)
        keep = equal(fitter(gated, gain), gated.prior.kinds, gated.alive)
        assert allowed(gated.prior.kinds, gated.by_group(keep)) and fitter(gated, gain).ratio(keep) <= 1
        assert torch.equal(fitter(gated, gain).close(keep), keep)
        assert fitter(gated, gain).ratio(keep) > 0.6


def test_a_filter_is_kept_with_one_of_its_features_at_least():
    """The best features are of four filters: other filters would go with the last of theirs."""
    conv = nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 2)
    )
    gated = gated_for(conv, torch.zeros(1, 1, 4, 4), params=0.4, multiple_of=4)
    gain, (filters, features) = drawn_gain(gated, 0).abs(), (gated.slices()[n] for n in ("0", "2"))
    gain[features.start : features.start + 16] += 10.0  # those of the first four
    choice = decided._Choice(fitter(gated, gain), gated.prior.kinds, gated.alive)
    keep = choice._top((8, 12, 16))
    assert torch.equal(keep[filters].nonzero().flatten(), gain[filters].topk(8).indices.sort().values)
    of = keep[features].view(12, 4).sum(1)  # features of each filter
    assert int(of.sum()) == 12 and bool((of[keep[filters]] > 0).all()) and not bool(of[~keep[filters]].any())
    others = keep[filters].nonzero().flatten()[keep[filters].nonzero().flatten() >= 4]
    assert of[others].tolist() == [1] * len(others)
    best = gain[features].view(12, 4)[others].argmax(1)
    assert bool(keep[features].view(12, 4)[others, best].all())


def test_sections_go_first_and_what_is_inside_them_counts_no_more():
    gated = gated_for(macs=0.5, uniform=True, layers="sections")
    gain = drawn_gain(gated, 0, 3.0)
    gain[gated.slices()["layers"]] = torch.tensor([-50.0, 9.0, 9.0]).double()
    keep = equal(fitter(gated, gain), gated.prior.kinds, gated.alive)
    kept = {name: int(mask.sum()) for name, mask in gated.by_group(keep).items()}
    assert kept["blocks_0_up"] == 0 and kept["layers"] == 2
    assert kept["blocks_1_up"] == kept["blocks_2_up"] > 0 and fitter(gated, gain).ratio(keep) <= 1
    dear = torch.where(gain > 8, 1000.0, gain)  # sections nobody wants to lose, and a budget that they exceed
    tight = gated_for(macs=0.1, uniform=True, layers="sections", multiple_of=4)
    keep = equal(fitter(tight, dear), tight.prior.kinds, tight.alive)
    assert fitter(tight, dear).ratio(keep) <= 1 and allowed(tight.prior.kinds, tight.by_group(keep))


def test_dead_units_go_as_far_as_all_of_a_kind_have_them():
    gated = gated_for(macs=0.2, uniform=True, multiple_of=2)
    parts, gain = gated.slices(), drawn_gain(gated, 1)
    dead = first_units(gated, blocks_0_up=5, blocks_1_up=3, blocks_2_up=4, stem=1)
    going = together(fitter(gated, gain), gated.prior.kinds, gated.alive, dead)
    gone = {name: int(mask.sum()) for name, mask in gated.by_group(going).items()}
    assert gone == {"stem": 0, "blocks_0_up": 3, "blocks_1_up": 3, "blocks_2_up": 3}  # of 7, so that 4 stay
    assert not bool((going & ~dead).any())
    ours, went = gain[parts["blocks_0_up"]], going[parts["blocks_0_up"]]
    assert ours[went].sort().values.tolist() == ours[:5].sort().values[:3].tolist()
    dead[parts["blocks_2_up"]] = False  # one of the kind has none to give
    assert not bool(together(fitter(gated, gain), gated.prior.kinds, gated.alive, dead).any())


def rows():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(96, 4, generator=generator)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0)


@pytest.mark.parametrize("settings", [{"uniform": True}, {"uniform": True, "multiple_of": 2}], ids=str)
@pytest.mark.filterwarnings("ignore::bayesprune.errors.BudgetWarning")
def test_sizes_are_equal_at_every_removal_of_a_fit(settings, monkeypatch):
    seen, remove_ = [], bp.GatedModel.remove_

    def watched(self, dead, optimiser=None):
        remove_(self, dead, optimiser)
        seen.append(allowed(self.prior.kinds, self.by_group(self.alive)))

    monkeypatch.setattr(bp.GatedModel, "remove_", watched)
    gated = gated_for(Stack(inner=12), macs=0.3, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bp.errors.EmptyGroupWarning)
        recipe = bp.Recipe(**{**FAST, "decide": 0.9})
        result = bp.fit(gated, rows(), recipe=recipe, epochs=12, batch_size=16, progress=False)
    assert len(seen) >= 3 and all(seen)
    small = bp.prune(result)
    assert type(small) is Stack and len({block.up.out_features for block in small.blocks}) == 1
    assert bp.count(small, rows()[0]).macs <= 0.3 * bp.count(Stack(inner=12), rows()[0]).macs


def test_what_the_smallest_sizes_cost_is_refused_at_the_gate():
    gated_for(macs=0.2)
    with pytest.raises(PriorError, match=r"the fewest units allowed .*'stem' \(4\), .*lower multiple_of="):
        gated_for(macs=0.2, multiple_of=4)
    with pytest.raises(PriorError, match="the fewest units allowed"):
        gated_for(macs=0.3, multiple_of=64)  # all groups stay whole


def test_a_warning_where_nothing_that_is_left_allows_the_sizes(monkeypatch):
    monkeypatch.setattr("bayesprune.svi.pricing.equal", lambda *_: None)
    gated = gated_for(macs=0.5, uniform=True)
    with pytest.warns(BudgetWarning, match="sizes are not held"):
        bp.fit(gated, rows(), recipe=bp.Recipe(**FAST), epochs=2, batch_size=16, progress=False)


@pytest.mark.filterwarnings("ignore::bayesprune.errors.BudgetWarning")
def test_a_fit_goes_on_under_the_same_sizes_alone(tmp_path):
    settings = dict(recipe=bp.Recipe(**FAST), epochs=2, batch_size=16, progress=False, checkpoint=tmp_path)
    bp.fit(gated_for(macs=0.5, uniform=True), rows(), **settings)
    with pytest.raises(CheckpointError):
        bp.fit(gated_for(macs=0.5), rows(), **settings)
