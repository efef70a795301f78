"""Lengths, heights and widths: any where the network takes any, refused where one is written down."""

import math
from math import sqrt as square_root

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bayesprune as bp
from bayesprune.errors import DataError
from bayesprune.structure.graph import analyse, as_plain_graph
from bayesprune.structure.graph.capture import capture, tracing
from bayesprune.structure.plain import PlainGraph


class Timed(nn.Module):
    """(rows, time, 4): units by units, and something that knows the time."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.second, self.head = (
            nn.Linear(*s) for s in ((4, 6), (6, 8), (8, 6), (6, 3))
        )
        self.table = nn.Parameter(torch.randn(20, 6))

    def branch(self, x):
        return self.second(self.first(x).relu())

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.branch(x)).mean(1))


class MeanBySize(Timed):
    def forward(self, x):
        return self.head(self.branch(self.stem(x)).sum(1) / x.shape[1])


class ScaledByLength(Timed):
    def branch(self, x):
        weights = (x @ x.transpose(1, 2) / x.shape[1]).softmax(-1)
        return super().branch(weights @ x / (1 + x.shape[1]))


class Positions(Timed):
    def branch(self, x):
        return super().branch(x + self.table[: x.shape[1]]) + self.table[torch.arange(x.shape[1])]


class Heads(Timed):
    def branch(self, x):
        rows, time, width = x.shape
        q = x.view(rows, time, 2, width // 2).transpose(1, 2)
        return super().branch(
            F.scaled_dot_product_attention(q, q, q, is_causal=True).transpose(1, 2).reshape(x.shape)
        )


class Halves(Timed):
    def branch(self, x):
        first, second = x.split((x.shape[1] // 2, x.shape[1] - x.shape[1] // 2), dim=1)
        return super().branch(torch.cat([second.flip(1), first], 1))


class Roots(Timed):
    """By the length, by functions of Python's and NumPy's, under whatever name."""

    def branch(self, x):
        scale = math.sqrt(x.shape[1]) + square_root(x.shape[1]) + np.sqrt(x.shape[1] / 2)
        return super().branch(x) / scale


class Powers(Timed):
    def branch(self, x):
        return super().branch(x) * x.shape[1] ** -0.5 / x.shape[1] ** 2 + math.pow(x.shape[1], 1.5)


class Imaged(nn.Module):
    """(rows, 3, height, width), and something that knows of both."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.second = (
            nn.Conv2d(3, 6, 3, 1, 1),
            nn.Conv2d(6, 8, 3, 2, 1),
            nn.Conv2d(8, 6, 1),
        )
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, x):
        return self.head(self.middle(self.stem(x).relu())).mean((2, 3))

    def middle(self, x):
        return self.second(self.first(x).relu())


class Interpolates(Imaged):
    def forward(self, x):
        y = self.middle(self.stem(x))
        return self.head(F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False))


class Flattens(Imaged):
    def middle(self, x):
        rows, channels, height, width = x.shape
        tokens = x.reshape(rows, channels, height * width).transpose(1, 2)
        return super().middle(tokens.transpose(1, 2).reshape(rows, channels, height, width)) / (
            height * width
        )


class Shuffles(Imaged):
    """Channels are moved about, so that what is left of them is read one by one."""

    def middle(self, x):
        rows, _, height, width = x.shape
        return super().middle(
            x.view(rows, 2, -1, height, width).transpose(1, 2).reshape(rows, -1, height, width)
        )


TIMED = [Timed, MeanBySize, ScaledByLength, Positions, Heads, Halves, Roots, Powers]
IMAGED = [Imaged, Interpolates, Flattens, Shuffles]


def cut_at_random(network, x):
    analysis = analyse(network, x)
    generator = torch.Generator().manual_seed(0)
    alive = {
        g.name: torch.rand(g.size, generator=generator) > 0.3 for g in analysis.groups if g.name != "layers"
    }
    return analysis, alive, analysis.cut(alive)


@pytest.mark.parametrize(
    ("kind", "example", "others"),
    [(kind, (2, 7, 4), [(3, 12, 4), (2, 2, 4)]) for kind in TIMED]
    + [(kind, (2, 3, 8, 8), [(3, 3, 11, 6), (1, 3, 16, 20)]) for kind in IMAGED],
)
def test_sizes_that_a_network_takes_are_free(kind, example, others):
    torch.manual_seed(0)
    network = kind().double()
    analysis, alive, cut = cut_at_random(network, torch.randn(example).double())
    gates = {name: mask.double() for name, mask in alive.items()}
    graph = as_plain_graph(network, torch.randn(example).double())
    for training in (True, False):
        for module in (network, analysis.gated, cut, graph):
            module.train(training)
        for shape in others:
            x = torch.randn(shape).double()
            dense = network(x)
            assert torch.allclose(analysis.gated(x), dense, rtol=0, atol=1e-10)
            assert torch.allclose(graph(x), dense, rtol=0, atol=1e-10)
            assert torch.allclose(cut(x), analysis.gated(x, gates=gates), rtol=0, atol=1e-10)


class Branches(Timed):
    """Nobody could tell from one trace what it does at other lengths."""

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.branch(x) * (2.0 if x.shape[1] == 7 else 3.0)).mean(1))


class Insists(Timed):
    def forward(self, x):
        assert x.shape[1] == 7
        return super().forward(x)


class Logarithm(Timed):
    """A number of Python's, in which no symbol can stand."""

    def branch(self, x):
        return super().branch(x) / math.log(x.shape[1])


class Real(Timed):
    def branch(self, x):
        return super().branch(x) / float(x.shape[1])


@pytest.mark.parametrize("kind", [Branches, Insists, Logarithm, Real])
def test_a_size_that_is_written_down_is_refused_by_name(kind, tmp_path):
    x, longer = torch.randn(2, 7, 4), torch.randn(2, 9, 4)
    network = kind()
    says = r"'x' has size 9 in dimension 1, and this network was traced at 7.*give 7 \(pad, crop or resize\)"
    analysis = analyse(network, x)
    graph = as_plain_graph(network, x)
    bp.save(network, tmp_path / "saved", example=x)
    loaded = bp.load(tmp_path / "saved")
    for module in (analysis.gated, graph, loaded):
        module(x)
        with pytest.raises(DataError, match=says):
            module(longer)
    with pytest.raises(DataError, match=says):
        loaded(x=longer)
    with pytest.raises(
        DataError, match=r"has shape \(2, 7\), and in the network's example a row has \(7, 4\)"
    ):
        loaded(longer[..., 0][:, :7])


def test_what_is_loaded_takes_the_sizes_that_the_network_took(tmp_path):
    network, longer = ScaledByLength().eval(), torch.randn(2, 11, 4)
    bp.save(network, tmp_path / "saved", example=torch.randn(2, 7, 4))
    loaded = bp.load(tmp_path / "saved")
    assert isinstance(loaded, PlainGraph) and torch.allclose(loaded(longer), network(longer), atol=1e-6)


def test_lengths_of_several_inputs_go_together(tmp_path):
    class Masked(Timed):
        def forward(self, x, mask):
            mask = mask[..., None].to(x.dtype)
            return super().forward(x * mask / x.shape[1]) / mask.mean(1)

    network = Masked().eval()
    graph = as_plain_graph(
        network, {"x": torch.randn(2, 7, 4), "mask": torch.ones(2, 7, dtype=torch.long)}
    ).eval()
    x, mask = torch.randn(3, 9, 4), (torch.rand(3, 9) > 0.3).long()
    assert graph.call_form.sizes == ((None, 4), (None,))
    assert torch.allclose(graph(x=x, mask=mask), network(x, mask), atol=1e-6)


def test_bucketed_batches_train_what_the_network_computes():
    torch.manual_seed(0)
    network = MeanBySize()
    batches = [(torch.randn(4, time, 4), torch.arange(4) % 3) for time in (9, 14, 7, 11)]
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=1.0))
    gated = bp.gate(network, batches[0][0][:1], prior=prior, likelihood=bp.Categorical(rows=16))
    assert torch.allclose(gated.network.eval()(batches[1][0]), network.eval()(batches[1][0]), atol=1e-6)
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    result = bp.fit(gated, loader, epochs=1, rows=16, progress=False)
    small = bp.prune(result)
    for rows in batches:  # at every length that was trained on
        found, masked = bp.evaluate(small, rows, result.likelihood), bp.evaluate(result, rows)
        assert found.nll == pytest.approx(masked.nll, rel=1e-5)


@pytest.mark.parametrize("kind", [Roots, Heads, Interpolates])
def test_batches_of_other_sizes_have_the_gradients_of_the_network_at_those_sizes(kind):
    torch.manual_seed(0)
    network = kind().double()
    shapes = [(4, 3, s, s + 2) for s in (8, 12, 6)] if kind is Interpolates else [(4, s, 4) for s in (9, 5)]
    batches = [torch.randn(shape).double() for shape in shapes]
    gated = analyse(network, batches[0]).gated
    for x in batches:
        slopes = []
        for module in (network, gated):
            module.zero_grad()
            module(x).square().sum().backward()
            slopes.append({name: p.grad for name, p in module.named_parameters() if p.grad is not None})
        assert slopes[0].keys() == slopes[1].keys()
        for name, slope in slopes[0].items():
            assert torch.allclose(slope, slopes[1][name], rtol=0, atol=1e-10), name


def test_positions_among_all_numbers_hold_at_one_size(monkeypatch):
    monkeypatch.setattr("bayesprune.structure.graph.surgery.adapt._Worker._pick", lambda *_: False)
    torch.manual_seed(0)
    network, x, other = (
        Shuffles().double(),
        torch.randn(2, 3, 8, 8).double(),
        torch.randn(2, 3, 8, 10).double(),
    )
    analysis, alive, cut = cut_at_random(network, x)
    gates = {name: mask.double() for name, mask in alive.items()}
    assert analysis.gated(other, gates=gates).isfinite().all()  # before the cut any size will do
    analysis.cut_(alive)
    for module in (cut, analysis.gated):
        assert torch.allclose(module(x), cut(x), rtol=0, atol=1e-10)
        with pytest.raises(
            DataError, match="'x' has size 10 in dimension 3, and this network was traced at 8"
        ):
            module(other)


def test_sizes_of_a_long_network_that_would_have_to_be_symbols_are_fixed(monkeypatch):
    """PyTorch takes minutes to trace hundreds of operations with symbols for sizes."""
    network = MeanBySize().eval()
    assert as_plain_graph(network, torch.randn(2, 7, 4))(torch.randn(2, 5, 4)).shape == (2, 3)
    monkeypatch.setattr(capture, "MOST_OPERATIONS", 3)
    graph = as_plain_graph(network, torch.randn(2, 7, 4))
    assert graph(torch.randn(5, 7, 4)).shape == (5, 3)
    with pytest.raises(DataError, match="7"):
        graph(torch.randn(2, 5, 4))


class Windows(nn.Module):
    """Pads to whole windows of 5, mixes within each, and cuts off again: several times over."""

    def __init__(self, blocks):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 3)
        self.mix = nn.ModuleList(nn.Conv2d(6, 6, 5, groups=1, padding=2) for _ in range(blocks))

    def forward(self, x):
        x = self.stem(x)
        for mix in self.mix:
            b, c, h, w = x.shape
            y = F.pad(x, (0, (5 - w % 5) % 5, 0, (5 - h % 5) % 5))
            y = y.view(b, c, y.shape[2] // 5, 5, y.shape[3] // 5, 5).permute(0, 2, 4, 1, 3, 5)
            y = mix(y.reshape(-1, c, 5, 5)).relu().view(b, *y.shape[1:])
            y = y.permute(0, 3, 1, 4, 2, 5).reshape(b, c, y.shape[1] * 5, y.shape[2] * 5)
            x = x + y[:, :, :h, :w]
        return self.head(x.mean((2, 3)))


def test_sizes_whose_formulas_grow_over_depth_are_fixed(monkeypatch):
    """PyTorch simplifies the formula of a size at every condition, and each block of windows triples it."""
    network, x = Windows(2).eval(), torch.randn(2, 3, 12, 12)
    other = torch.randn(2, 3, 9, 14)
    free = as_plain_graph(network, x)
    torch.testing.assert_close(free(other), network(other), rtol=0, atol=1e-5)
    monkeypatch.setattr(tracing, "MOST_IN_A_SIZE", 10)
    fixed = as_plain_graph(network, x)
    torch.testing.assert_close(fixed(x), network(x), rtol=0, atol=1e-5)
    with pytest.raises(DataError, match="12"):
        fixed(other)
