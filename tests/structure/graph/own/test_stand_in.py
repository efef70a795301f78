"""Where a whole section was removed something stands in for its modules, in the user's own class."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import UnsupportedNetworkError
from bayesprune.structure.graph import PlainGraph
from bayesprune.structure.graph.own.stand_in import INPUT, KINDS, PAIR, stand_in
from bayesprune.structure.plain import graphs_inside
from tests.structure.graph.own.networks import Fused, Transformer
from tests.structure.graph.own.test_noted import assert_same, build


def without(network, x, *lost):
    """Some sections gone, by their numbers; and what the masked network returns."""
    analysis = bp.analyse(network, x)
    size = next(g.size for g in analysis.groups if g.name == "layers")
    alive = {"layers": torch.tensor([i not in lost for i in range(size)])}
    small, gates = analysis.cut(alive), {"layers": alive["layers"].double()}
    return small, {mode: analysis.gated.train(mode)(x, gates) for mode in (True, False)}


class Normed(nn.Module):
    """Convolutions beside a shortcut, which is added in place."""

    def __init__(self, stride=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, stride, 1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.down = nn.Conv2d(4, 4, 1, stride) if stride > 1 else None

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        y += x if self.down is None else self.down(x)
        return y.relu()


class Projected(Normed):
    """The same beside a projection, which makes other shapes."""

    def __init__(self):
        super().__init__(stride=2)

    def forward(self, x):
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + self.down(x)).relu()


class Scaled(nn.Module):
    """A block whose parameters are all beside the shortcut, one of them its own."""

    def __init__(self):
        super().__init__()
        self.gamma, self.conv1, self.conv2 = (
            nn.Parameter(torch.ones(4, 1, 1)),
            nn.Conv2d(4, 6, 1),
            nn.Conv2d(6, 4, 1),
        )

    def forward(self, x):
        return x + self.gamma * self.conv2(self.conv1(x).relu())


class Attending(nn.Module):
    """PyTorch's attention, which returns a pair."""

    def __init__(self):
        super().__init__()
        self.norm, self.attn = nn.LayerNorm(4), nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        y = self.norm(x.flatten(2).transpose(1, 2))
        return x + self.attn(y, y, y, need_weights=False)[0].transpose(1, 2).reshape(x.shape)


class Around(nn.Module):
    """Blocks between a convolution and a head."""

    def __init__(self, *blocks):
        super().__init__()
        self.stem, self.blocks, self.head = nn.Conv2d(3, 4, 1), nn.Sequential(*blocks), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x).relu()).mean((-2, -1)))


BLOCKS = {"in_place": Normed, "whole_block": Scaled, "pair": Attending, "projected": Projected}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_network_without_a_section_is_of_its_class(name, tmp_path):
    network, x = build(Around, BLOCKS[name](), BLOCKS[name]()), torch.randn(3, 3, 4, 4).double()
    small, masked = without(network, x, 0)
    assert type(small) is Around
    assert_same(small, masked, x)
    lost = set(network.state_dict()) - set(small.state_dict())
    assert lost and all(key.startswith("blocks.0.") for key in lost)
    more = torch.randn(5, 3, 4, 4).double()
    bp.save(small.eval(), tmp_path, x)
    with torch.enable_grad():  # without, attention has a kernel of its own
        assert torch.equal(bp.load(tmp_path)(more), small(more))
    own = bp.load(tmp_path, into=build(Around, BLOCKS[name](), BLOCKS[name]()))
    assert type(own) is Around and torch.equal(own(more), small(more))
    assert own.state_dict().keys() == small.state_dict().keys()


def test_sizes_follow_where_sections_are_gone_too():
    network, x = build(Transformer, Fused), torch.randn(3, 4, 5).double()
    analysis = bp.analyse(network, x)
    alive = {g.name: torch.arange(g.size) % 3 != 1 for g in analysis.groups}
    alive["layers"] = torch.tensor([False, True, True, False])
    small, gates = analysis.cut(alive), {name: mask.double() for name, mask in alive.items()}
    masked = {mode: analysis.gated.train(mode)(x, gates) for mode in (True, False)}
    assert type(small) is Transformer and small.blocks[1].attn.num_heads == 2
    assert not list(small.blocks[0].attn.parameters()) and not list(small.blocks[1].fc2.parameters())
    assert_same(small, masked, x)
    again = bp.analyse(small, x)
    assert {g.name for g in again.groups} < {g.name for g in analysis.groups}


def test_a_module_runs_as_its_graph_where_nothing_stands_in(tmp_path):
    """The section makes images smaller, which nothing without parameters is known to do."""
    network, x = build(Around, Normed(2)), torch.randn(3, 3, 4, 4).double()
    small, masked = without(network, x, 0)
    assert type(small) is Around and list(graphs_inside(small)) == ["blocks.0"]
    assert not any(name.startswith(("blocks.0.conv", "blocks.0.bn")) for name in small.state_dict())
    assert_same(small, masked, x)
    bp.save(small.eval(), tmp_path, x)
    assert torch.equal(bp.load(tmp_path)(x), small(x))


class Layers(nn.Module):
    """PyTorch's own layer, which looks into its attention before it takes a path of its own in evaluation."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, norm_first=True, dropout=0.0)
        self.stem, self.layer, self.head = nn.Linear(3, 4), layer, nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.layer(self.stem(x)).mean(1))


@pytest.mark.parametrize("section", [0, 1])
def test_what_comes_out_runs_as_anybody_runs_it(section, tmp_path):
    network, x = build(Layers), torch.randn(3, 5, 3).double()
    small, masked = without(network, x, section)
    assert_same(small, masked, x)
    bp.save(small.eval(), tmp_path, x)
    with torch.no_grad():
        for training in (True, False):
            assert torch.isfinite(small.train(training)(x)).all()
        try:
            own = bp.load(tmp_path, into=build(Layers))
        except UnsupportedNetworkError:
            assert isinstance(small, PlainGraph)
        else:
            assert (own.eval()(x) - small.eval()(x)).abs().max() < 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_stand_ins_are_pickled_without_this_library(kind):
    file = io.BytesIO()
    torch.save(stand_in(kind), file)
    assert b"bayesprune" not in file.getvalue()
    file.seek(0)
    loaded, x = torch.load(file, weights_only=False), torch.ones(2, 3)
    first = loaded(x)[0] if kind == PAIR else loaded(x)
    assert torch.equal(x + first, 2 * x if kind == INPUT else x)
