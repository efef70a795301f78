"""A module in whose forward no attribute helps runs as its graph; the network stays of its own class."""

from __future__ import annotations

import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bayesprune as bp
from bayesprune.errors import DataError
from bayesprune.structure.graph.own import noted
from bayesprune.structure.plain import graphs_inside
from tests.structure.graph.own.networks import HEADS, SIZE, WIDTH, Transformer
from tests.structure.graph.own.test_noted import assert_same, build, cut


class Dividing(nn.Module):
    """Attention whose heads have the width of its input, divided by their number."""

    def __init__(self):
        super().__init__()
        self.num_heads = HEADS
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        rows, length, width = x.shape
        qkv = self.qkv(x).reshape(rows, length, 3, self.num_heads, width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.proj(y.reshape(rows, length, width))


class Relative(nn.Module):
    """Attention with a table of biases by distance, and the width of its input."""

    def __init__(self):
        super().__init__()
        self.num_heads = HEADS
        self.table = nn.Parameter(torch.randn(7, HEADS))
        self.register_buffer("index", torch.arange(4)[:, None] - torch.arange(4) + 3, persistent=False)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * HEADS * SIZE), nn.Linear(HEADS * SIZE, WIDTH)

    def forward(self, x):
        rows, length, width = x.shape
        qkv = self.qkv(x).reshape(rows, length, 3, self.num_heads, 2 * width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.table[self.index.view(-1)].view(4, 4, -1).permute(2, 0, 1)
        y = (q @ k.transpose(-2, -1) + bias).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(rows, length, 2 * width))


class Lambda(nn.Module):
    """A layer whose values, as wide as is computed, are read through one small matrix for a row."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.dim_qk = 2, 4
        self.qkv = nn.Linear(WIDTH, 2 * 4 + 4 + WIDTH // 2)

    def forward(self, x):
        rows, length, width = x.shape
        q, k, v = self.qkv(x).split([2 * self.dim_qk, self.dim_qk, width // self.num_heads], dim=-1)
        content = k.softmax(1).transpose(1, 2) @ v  # (B, K, V)
        q = q.reshape(rows, length, self.num_heads, self.dim_qk).transpose(1, 2)  # (B, H, T, K)
        return (q @ content.unsqueeze(1)).transpose(1, 2).reshape(rows, length, width)


ATTENTIONS = [Dividing, Relative, Lambda]


STEM = torch.arange(WIDTH) != 1
"""Of the stream 11 units are left, which no number of heads divides."""


def narrowed(attention):
    network, x = build(Transformer, attention), torch.randn(3, 4, 5).double()
    small, masked = cut(network, x, **({} if attention is Lambda else {"stem": STEM}))
    return network, x, small, masked


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_module_alone_runs_as_its_graph(attention, tmp_path):
    network, x, small, masked = narrowed(attention)
    assert type(small) is Transformer and type(small.blocks[0]) is type(network.blocks[0])
    graphs = graphs_inside(small)
    assert list(graphs) == ["blocks.0.attn", "blocks.1.attn"]
    assert all("RuntimeError" in why for why in graphs.values())
    assert f"a {attention.__name__} of" in repr(small.blocks[0].attn)
    assert small.state_dict().keys() == network.state_dict().keys()
    assert_same(small, masked, x)
    more = torch.randn(7, 4, 5).double()
    bp.save(small.eval(), tmp_path, x)
    assert torch.equal(bp.load(tmp_path)(more), small(more))


def test_it_is_copied_pickled_moved_and_trained():
    _, x, small, _ = narrowed(Dividing)
    file, expected = io.BytesIO(), small(x)
    torch.save(small, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), expected)
    small(x).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in small.blocks[1].attn.parameters())
    single = small.float()(x.float())
    assert single.dtype is torch.float32 and torch.allclose(single.double(), expected, atol=1e-4)


def test_it_is_cut_again():
    _, x, small, _ = narrowed(Dividing)
    again, masked = cut(small.train(), x, stem=torch.arange(11) != 2)
    assert type(again) is Transformer and list(graphs_inside(again)) == ["blocks.0.attn", "blocks.1.attn"]
    assert_same(again, masked, x)


class Free(nn.Module):
    """Any number of positions."""

    def __init__(self, attention):
        super().__init__()
        self.stem, self.attn, self.head = nn.Linear(5, WIDTH), attention, nn.Linear(WIDTH, 4)

    def forward(self, x):
        return self.head(self.attn(self.stem(x)).mean(1))


def test_it_takes_the_sizes_that_the_network_takes():
    network, x = build(Free, Dividing()), torch.randn(3, 4, 5).double()
    analysis = bp.analyse(network, x)
    alive = {g.name: torch.arange(g.size) % 3 != 1 for g in analysis.groups} | {"stem": STEM}
    small = analysis.cut(alive)
    assert type(small) is Free and list(graphs_inside(small)) == ["attn"]
    gates, longer = {name: mask.double() for name, mask in alive.items()}, torch.randn(2, 9, 5).double()
    for mode in (True, False):
        masked = analysis.gated.train(mode)(longer, gates)
        assert (small.train(mode)(longer) - masked).abs().max() < 1e-10


def test_a_size_that_the_network_has_fixed_is_refused():
    network, x = build(Free, Relative()), torch.randn(3, 4, 5).double()
    small, masked = cut(network, x, stem=STEM)
    assert list(graphs_inside(small)) == ["attn"]
    assert_same(small, masked, x)
    with pytest.raises(DataError, match=r"Relative: 'x' has size 3 in dimension 1, .* traced at 4"):
        small(torch.randn(3, 3, 5).double())


class Windows(nn.Module):
    """Mixes the windows that it is given as rows, four for each of the network's."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):  # (4 B, 1, C)
        y = self.first(x).view(-1, 4, WIDTH)
        return self.last(y - y.mean(1, keepdim=True)).view(x.shape[0], 1, -1)


class InWindows(nn.Module):
    """Insists on four positions, and makes a window of each."""

    def __init__(self):
        super().__init__()
        self.inner = Windows()

    def forward(self, x):
        assert x.shape[1] == 4
        return self.inner(x.reshape(-1, 1, x.shape[2])).view(x.shape)


def test_rows_that_a_module_mixes_are_left_to_the_module_around_it():
    network, x = build(Free, InWindows()), torch.randn(3, 4, 5).double()
    small, masked = cut(network, x, stem=STEM)
    assert list(graphs_inside(small)) == ["attn"]
    assert_same(small, masked, x)


class Shared(nn.Module):
    """Runs one module twice, which no graph of one call can stand for."""

    def __init__(self):
        super().__init__()
        self.attn = Dividing()

    def forward(self, x):
        return self.attn(self.attn(x))


def test_a_module_that_runs_twice_is_left_to_the_module_around_it():
    network, x = build(Free, Shared()), torch.randn(3, 4, 5).double()
    small, masked = cut(network, x, stem=STEM)
    assert list(graphs_inside(small)) == ["attn"]
    assert_same(small, masked, x)


class Many(nn.Module):
    """Notes many numbers, of which none helps."""

    def __init__(self):
        super().__init__()
        for number in range(20):
            setattr(self, f"n{number}", WIDTH)
        self.inner = Dividing()

    def forward(self, x):
        return self.inner(x)


def test_a_search_that_finds_nothing_ends_soon(monkeypatch):
    runs = []

    def counted(*given):
        progress = progress_of(*given)
        runs.append((progress.uses + 1) / (len(given[1].uses) + 1))
        return progress

    progress_of = noted.progress_of
    monkeypatch.setattr(noted, "progress_of", counted)
    network = build(Free, nn.Sequential(*(Many() for _ in range(6))))
    small, _ = cut(network, torch.randn(3, 4, 5).double(), stem=STEM)
    assert list(graphs_inside(small)) == [f"attn.{number}.inner" for number in range(6)]
    assert sum(runs) < 2 * noted.MOST_IN_VAIN and len(runs) < 2 * noted.MOST_TRIALS
