"""Whole sections beside a shortcut: found, gated, and removed without a trace."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from bayesprune.errors import SettingsError
from bayesprune.structure.graph import analyse
from bayesprune.structure.graph.analysis.branches import find_branches
from bayesprune.structure.plain import PlainGraph
from tests.nightly import one_in
from tests.structure.graph.checks import assert_matters, assert_same, everything, gates_of, run
from tests.structure.graph.networks import CASES, randomise_

ROWS = 5


class Block(nn.Module):
    """Two convolutions beside a shortcut; the sum is then changed in place."""

    def __init__(self, width, projected=False):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width + 2, 3, 1, 1), nn.BatchNorm2d(width + 2)
        self.conv2, self.norm2 = nn.Conv2d(width + 2, width, 3, 1, 1), nn.BatchNorm2d(width)
        self.shortcut = nn.Conv2d(width, width, 1) if projected else nn.Identity()

    def forward(self, x):
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        y += self.shortcut(x)
        return F.relu(y, inplace=True)


class ResNet(nn.Module):
    """Three blocks, and a shortcut around the last two: a section of sections."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.first, self.second, self.third = Block(4), Block(4, projected=True), Block(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        features = self.first(self.stem(x))
        return self.head((self.third(self.second(features)) + features).mean((2, 3)))


class PreNorm(nn.Module):
    """Attention and feed-forward beside the stream, twice."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        layer = nn.TransformerEncoderLayer(8, 2, 12, norm_first=True, batch_first=True, dropout=0.0)
        self.blocks = nn.ModuleList([layer, copy.deepcopy(layer)])

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


class Nested(nn.Module):
    """A section in a section."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.up, self.head = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x):
        x = self.stem(x)
        y = self.up(x).relu()
        y = y + self.inner(y).tanh()
        return self.head(x + y.sigmoid())


class TwoBranches(nn.Module):
    """Both operands pass a nonlinearity: nothing leads around either."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right, self.head = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.left(x).relu() + self.right(x).tanh())


class Linear(nn.Module):
    """A sum whose operands are linear both: no nonlinear section."""

    def __init__(self):
        super().__init__()
        self.stem, self.side, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head(x + self.side(x))


class SharedLayer(nn.Module):
    """The section's only layer is used again outside of it: it has nothing of its own."""

    def __init__(self):
        super().__init__()
        self.stem, self.side, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.side(x).relu()
        return self.head(self.side(x).tanh())


class Parallel(nn.Module):
    """Attention and feed-forward side by side on one norm, as in GPT-J."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.head = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 3)
        self.left, self.right = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(x)
        return self.head(x + self.left(y).relu() + self.right(y).tanh())


def images():
    return torch.randn(ROWS, 3, 8, 8, dtype=torch.float64)


def vectors():
    return torch.randn(ROWS, 6, dtype=torch.float64)


def tokens():
    return torch.randn(ROWS, 5, 4, dtype=torch.float64)


OWN = {
    "ResNet": (ResNet, images, 4),
    "PreNorm": (PreNorm, tokens, 4),
    "Nested": (Nested, vectors, 2),
    "Parallel": (Parallel, vectors, 2),
    "TwoBranches": (TwoBranches, vectors, 0),
    "Linear": (Linear, vectors, 0),
    "SharedLayer": (SharedLayer, vectors, 0),
}


def build(name):
    torch.manual_seed(0)
    network, batch, _ = OWN[name]
    return randomise_(network().double(), 0).train(), batch()


@pytest.mark.parametrize("name", OWN)
def test_every_section_is_found_and_nothing_else(name):
    network, x = build(name)
    analysis = analyse(network, x)
    assert len(analysis.structure.sections) == OWN[name][2]
    assert ("layers" in {group.name for group in analysis.groups}) == (OWN[name][2] > 0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [name for name in OWN if OWN[name][2]])
def test_each_section_alone_is_removed_exactly(name, training):
    network, x = build(name)
    analysis = analyse(network, x)
    whole = run(analysis.gated, (x,), training)
    assert_same(whole, run(network, (x,), training))
    for section in analysis.structure.sections:
        alive = everything(analysis)
        alive["layers"][section.unit] = False
        masked = run(analysis.gated, (x,), training, gates_of(alive, x.dtype))
        small = analysis.cut(alive)
        assert_same(run(small, (x,), training), masked)
        assert_matters(masked, whole)
        assert not section.tensors & {*small.state_dict()}
        assert len(small.state_dict()) == len(network.state_dict()) - len(section.tensors)
        assert all(p.numel() for p in small.parameters())


@pytest.mark.parametrize("name", [name for name in OWN if OWN[name][2]])
def test_sections_and_units_go_together_or_one_after_the_other(name):
    network, x = build(name)
    units, sections = everything(analyse(network, x)), {}
    generator = torch.Generator().manual_seed(3)
    for group, mask in units.items():
        if group != "layers":
            mask[torch.randperm(len(mask), generator=generator)[: len(mask) // 3]] = False
    sections = {"layers": torch.arange(len(units["layers"])) > 0}
    at_once = analyse(network, x).cut({**units, **sections})
    for order in ((units, sections), (sections, units)):
        analysis = analyse(network, x)
        for alive in order:
            analysis.cut_(alive)
        assert_same(run(analysis.gated, (x,), True), run(at_once, (x,), True))
    assert type(at_once) is type(network) or isinstance(at_once, PlainGraph)
    assert_matters(run(at_once, (x,), False), run(network, (x,), False))


def test_all_sections_gone_leaves_the_shortcuts():
    network, x = build("PreNorm")
    alive = {"layers": torch.zeros(4, dtype=torch.bool)}
    small = analyse(network, x).cut(alive)
    assert {name.partition(".")[0] for name in small.state_dict()} == {"embed", "head"}
    expected = network.head(network.embed(x).mean(1))
    assert torch.allclose(small(x), expected, atol=1e-12)


def test_blocks_put_the_sections_of_a_module_under_one_gate():
    network, x = build("PreNorm")
    analysis = analyse(network, x, layers="blocks")
    assert [group.size for group in analysis.groups if group.name == "layers"] == [2]
    assert [section.name for section in analysis.structure.sections] == ["blocks.0"] * 2 + ["blocks.1"] * 2
    alive = everything(analysis)
    alive["layers"][0] = False
    small = analysis.cut(alive)
    assert_same(run(small, (x,), True), run(analysis.gated, (x,), True, gates_of(alive, x.dtype)))
    assert not any(name.startswith("blocks.0") for name in small.state_dict())


def test_inputs_are_not_changed_by_what_follows_a_removed_section():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.side, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x):
            y = x + self.side(x).tanh()
            return self.head(F.relu(y, inplace=True))

    x = vectors()
    before = x.clone()
    small = analyse(randomise_(Bare().double(), 0), x).cut({"layers": torch.tensor([False])})
    small(x)
    assert torch.equal(x, before)


def test_gates_for_every_row_close_a_section_for_some_rows_only():
    network, x = build("ResNet")
    gated = analyse(network, x).gated.eval()
    gates = torch.ones(ROWS, 4, dtype=torch.float64)
    gates[1, 2] = gates[3, 0] = 0.0
    with torch.no_grad():
        together = gated(x, gates={"layers": gates})
        apart = torch.cat([gated(x[i : i + 1], gates={"layers": gates[i]}) for i in range(ROWS)])
    assert torch.allclose(together, apart, atol=1e-12)


def test_sections_can_be_left_alone():
    network, x = build("ResNet")
    for settings in ({"layers": "none"}, {"exclude": ["layers"]}):
        assert "layers" not in {group.name for group in analyse(network, x, **settings).groups}
    with pytest.raises(SettingsError, match="layers='block' is none of 'sections', 'blocks', 'none'"):
        analyse(network, x, layers="block")
    with pytest.raises(SettingsError, match="exclude names 'layers', and no group"):
        analyse(build("Linear")[0], build("Linear")[1], exclude=["layers"])


WITH_SECTIONS = [
    "ResidualIdentity",
    "ResidualProjection",
    "InvertedResidual",
    "ResNeXtBlock",
    "LayerNormalised",
    "RootMeanSquareNormalised",
    "HandWrittenNorm",
    "ConvNeXtBlock",
    "GlobalResponse",
    "LearnedScales",
    "TiedEmbedding",
    "vision_transformer_heads_from_shape",
    "vision_transformer_heads_in_attribute",
    "ModuleAttention",
    "EncoderLayers",
    "WindowAttention",
]


@pytest.mark.parametrize("name", one_in(2, WITH_SECTIONS))
def test_networks_of_the_collection_lose_all_their_sections(name):
    case = CASES[name]
    network, x = case.network(), case.batch(ROWS)
    analysis = analyse(network, x)
    alive = everything(analysis)
    alive["layers"][:] = False
    for training in (True, False):
        masked = run(analysis.gated, x, training, gates_of(alive, torch.float64))
        assert_same(run(analysis.cut(alive), x, training), masked)
        assert_matters(masked, run(network, x, training))


def test_depth_is_no_limit():
    """A section behind more operations than Python's stack has room for calls."""
    network, graph, aten = nn.Linear(3, 3), fx.Graph(), torch.ops.aten
    x = deep = graph.placeholder("x")
    for _ in range(3000):
        deep = graph.call_function(aten.relu.default, (deep,))
    inner = graph.call_function(aten.linear.default, (deep, graph.get_attr("weight"), graph.get_attr("bias")))
    scaled = graph.call_function(aten.mul.Tensor, (graph.call_function(aten.tanh.default, (inner,)), deep))
    total = graph.call_function(aten.add.Tensor, (x, scaled))
    graph.output((total,))
    sizes = {node: torch.Size([2, 3]) for node in graph.nodes if node.op in ("placeholder", "call_function")}
    found = find_branches(fx.GraphModule(network, graph), network, sizes)
    assert list(found) == [frozenset({"weight", "bias"})]
