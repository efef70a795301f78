"""Sizes that modules note follow a cut, or the graph says which module stands in the way."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bayesprune as bp
from bayesprune.errors import UnsupportedNetworkError
from bayesprune.structure.graph import PlainGraph
from bayesprune.structure.graph.own.signs import progress_of, reference_of
from bayesprune.structure.plain import graphs_inside
from tests.structure.graph.own.networks import ATTENTIONS, HEADS, SIZE, WIDTH, Fused, Transformer

TOLERANCE = 1e-10


def build(kind, *arguments):
    """In double precision, of random numbers."""
    torch.manual_seed(0)
    return kind(*arguments).double()


def cut(network, x, **keep):
    """A third or more of every group but whole sections gone; and what the masked network returns."""
    analysis = bp.analyse(network, x)
    units = [g for g in analysis.groups if not g.optional]
    alive = {g.name: keep.get(g.name, torch.arange(g.size) % 3 != 1 + i % 2) for i, g in enumerate(units)}
    small, gates = analysis.cut(alive), {name: mask.double() for name, mask in alive.items()}
    return small, {mode: analysis.gated.train(mode)(x, gates) for mode in (True, False)}


def assert_same(small, masked, x):
    for mode, expected in masked.items():
        assert (small.train(mode)(x) - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_transformer_comes_out_as_its_own_class(attention, tmp_path):
    network, x = build(Transformer, attention), torch.randn(3, 4, 5).double()
    small, masked = cut(network, x)
    assert type(small) is Transformer
    assert not graphs_inside(small), "their sizes are attributes: their own code runs"
    assert_same(small, masked, x)
    more = torch.randn(7, 4, 5).double()
    bp.save(small.eval(), tmp_path, x)
    assert torch.equal(bp.load(tmp_path)(more), small(more))
    own = bp.load(tmp_path, into=build(Transformer, attention))
    assert type(own) is Transformer and torch.equal(own(more), small(more))


def test_sizes_are_noted_for_each_module_by_itself():
    network, x = build(Transformer, Fused), torch.randn(2, 4, 5).double()
    keep = {f"blocks_{i}_attn_qkv": torch.arange(3) < i + 1 for i in range(2)}
    small, masked = cut(network, x, **keep)
    assert_same(small, masked, x)
    noted = [(b.attn.num_heads, b.attn.head_dim, b.attn.attn_dim, b.attn.scale) for b in small.blocks]
    assert noted == [(h, SIZE, h * SIZE, SIZE**-0.5) for h in (1, 2)]
    assert all(block.attn.num_heads == 3 for block in network.blocks), "the user's network is left alone"


class Table(nn.Module):
    """Biases of pairs of positions, by a method that is not called ``forward``."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.shape = HEADS, (4, 4, HEADS)
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, HEADS))
        self.register_buffer("places", torch.randn(16, 2))

    def biases(self):
        return self.layers(self.places).view(-1, self.num_heads).view(self.shape).permute(2, 0, 1)


class Placed(nn.Module):
    """Attention with such biases."""

    def __init__(self):
        super().__init__()
        self.table, self.attn, self.head = Table(), Fused(), nn.Linear(WIDTH, 4)
        self.stem = nn.Linear(5, WIDTH)

    def forward(self, x):
        rows, length, _ = x.shape
        qkv = self.attn.qkv(self.stem(x)).reshape(rows, length, 3, -1, SIZE)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = (q @ k.transpose(-2, -1) + self.table.biases()).softmax(-1) @ v
        return self.head(self.attn.proj(y.transpose(1, 2).flatten(2)).mean(1))


def test_sizes_of_a_module_whose_forward_is_not_called_are_noted():
    network, x = build(Placed), torch.randn(3, 4, 5).double()
    small, masked = cut(network, x)
    assert type(small) is Placed and not graphs_inside(small)
    assert small.table.num_heads == small.attn.proj.in_features // SIZE < HEADS
    assert small.table.shape == (4, 4, small.table.num_heads)
    assert_same(small, masked, x)


class Role(nn.Module):
    """A number that is a size in one place, and a factor in another, which a cut does not change."""

    def __init__(self, apart):
        super().__init__()
        self.width = self.factor = 6
        self.apart = apart
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        y = self.first(x * x[:, :1]).relu().view(x.shape[0], self.width)
        return self.head(y / (self.factor if self.apart else self.width))


@pytest.mark.parametrize("apart", [True, False])
def test_a_size_that_is_a_factor_too_is_not_changed(apart):
    network, x = build(Role, apart), torch.randn(2, 4).double()
    small, masked = cut(network, x, first=torch.arange(6) < 4)
    assert_same(small, masked, x)
    assert (type(small) is Role) == apart
    if apart:
        assert (small.width, small.factor) == (4, 6)
    else:
        assert isinstance(small, PlainGraph) and "for it does not" in repr(small)


class InTraining(nn.Module):
    """Reads a size in training alone."""

    def __init__(self):
        super().__init__()
        self.width = 6
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        y = self.first(x * x[:, :1]).relu()
        return self.head(y.view(-1, self.width) if self.training else y)


def test_sizes_are_found_in_both_modes():
    network, x = build(InTraining), torch.randn(2, 4).double()
    small, masked = cut(network, x, first=torch.arange(6) < 4)
    assert type(small) is InTraining and small.width == 4
    assert_same(small, masked, x)


class Literal(nn.Module):
    """A size that stands in the network's own code."""

    def __init__(self):
        super().__init__()
        self.width = 6
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.first(x * x[:, :1]).relu().view(-1, 6))


def test_a_network_in_which_nothing_helps_says_so(tmp_path):
    network, x = build(Literal), torch.randn(2, 4).double()
    small, masked = cut(network, x)
    assert isinstance(small, PlainGraph)
    assert_same(small, masked, x)
    assert "for it does not run with the sizes that are left (RuntimeError: shape" in repr(small)
    assert repr(copy.deepcopy(small)) == repr(small)
    bp.save(small.eval(), tmp_path, x)
    own = Literal().double()
    with pytest.raises(bp.errors.UnsupportedNetworkError, match="cannot hold the sizes"):
        bp.load(tmp_path, into=own)
    assert own.width == 6


def test_a_network_that_reads_its_sizes_is_not_searched(monkeypatch):
    def searched(*_):
        raise AssertionError("searched")

    monkeypatch.setattr("bayesprune.structure.graph.network.noted_sizes", searched)
    small, _ = cut(
        build(nn.Sequential, nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 2)), torch.randn(2, 5).double()
    )
    assert type(small) is nn.Sequential


class NearlyItself(nn.Module):
    """Reads how many units there are, and makes next to nothing of it."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(5, 12), nn.Linear(12, 3)

    def forward(self, x):
        hidden = self.first(x).relu()
        return self.head(hidden) + 5e-6 * hidden.shape[-1]


def test_what_differs_by_little_more_than_rounding_is_not_taken_for_the_network(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(4, 5)
    structure = bp.analyse(NearlyItself(), x, inputs=False)
    keep = {group.name: torch.arange(group.size) < 4 for group in structure.groups}
    small = structure.cut(keep)
    masked = structure.gated.eval()(x, {name: mask.float() for name, mask in keep.items()})
    torch.testing.assert_close(small.eval()(x), masked, rtol=0, atol=2e-6)
    assert type(small) is not NearlyItself  # whose numbers are 4e-5 away
    bp.save(small, tmp_path / "small", x)
    with pytest.raises(UnsupportedNetworkError, match="NearlyItself computes something else"):
        bp.load(tmp_path / "small", into=NearlyItself())
    whole = structure.cut({name: torch.ones_like(mask) for name, mask in keep.items()})
    assert type(whole) is NearlyItself


class Counting(nn.Module):
    """A layer that counts its calls, and does something else beside it where told."""

    def __init__(self, beside=None):
        super().__init__()
        self.linear, self.calls, self.beside = nn.Linear(4, 4), 0, beside

    def forward(self, x):
        self.calls += 1
        y = self.linear(x)
        if self.beside == "writes":
            x.add_(1)
        return F.dropout(y, 0.5) if self.beside == "draws" else y


@pytest.mark.parametrize("beside, runs_again", [(None, False), ("writes", True), ("draws", True)])
def test_a_module_that_was_passed_is_not_run_again(beside, runs_again):
    torch.manual_seed(0)
    x = torch.randn(3, 4)
    network = nn.Sequential(Counting(beside), Counting(), Counting(), Counting()).train()
    with torch.no_grad():
        other = copy.deepcopy(network)
        other[3].linear.weight.add_(1)

    def run(module):
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            return [module(x.clone())]

    reference = reference_of(other, other, run)
    first = progress_of(network, reference, run)
    assert first.uses == 3 and first.outputs is None
    before = [layer.calls for layer in network]
    with torch.no_grad():
        network[3].linear.weight.add_(1)
    second = progress_of(network, reference, run, first.uses, first.passed)
    assert second.uses == 4 and torch.equal(second.outputs[0], reference.outputs[0])
    again = [layer.calls > calls for layer, calls in zip(network, before, strict=True)]
    assert again == [runs_again, False, True, True]
    assert all("forward" not in vars(layer) for layer in network)
