"""Rules for what networks of the field have beside plain layers: each exact, and the share that may go."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bayesprune.errors import RemovalError
from bayesprune.structure.graph import analyse
from bayesprune.structure.graph.network import GraphNetwork
from tests.structure.graph.checks import difference, drawn_alive, gates_of, run
from tests.structure.graph.networks import randomise_
from tests.structure.graph.test_on_parameters import assert_exact


def exact(network, *inputs):
    """The analysis of a network with random numbers in it, whose cuts were compared with masks."""
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    return assert_exact(randomise_(network.double()), inputs)


def sizes(analysis):
    return {group.name: group.size for group in analysis.groups}


class WrittenSizes(nn.Module):
    """Parameters that are brought into form by numbers."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, 3)
        self.scale, self.table = nn.Parameter(torch.zeros(8)), nn.Parameter(torch.zeros(2, 3))

    def forward(self, x):
        x = self.conv1(x).tanh() * self.scale.view(1, 8, 1, 1)
        return self.head(self.conv2(x).relu().mean((2, 3)) + self.table.reshape(1, 6))


def test_parameters_with_written_sizes_follow_or_stay():
    analysis = exact(WrittenSizes(), torch.randn(4, 3, 7, 7))
    assert sizes(analysis) == {"conv1": 8, "conv2": 3}
    assert "table" in {frozen.place.partition(" ")[0] for frozen in analysis.frozen}


class Generator(nn.Module):
    """Channels of a map that a linear layer makes, as in decoders."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 7), nn.Linear(7, 48)
        self.up1, self.up2 = nn.ConvTranspose2d(12, 6, 3, groups=2), nn.ConvTranspose2d(6, 5, 3)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = self.fc2(self.fc1(x).tanh()).view(-1, 12, 2, 2)
        return self.head(self.up2(self.up1(x).sigmoid()).tanh().mean((2, 3)))


def test_transposed_convolutions_behind_a_reshape():
    analysis = exact(Generator(), torch.randn(4, 4))
    assert {"fc1": 7, "fc2": 6, "up2": 3}.items() <= sizes(analysis).items()


class Rotary(nn.Module):
    """Attention with rotated queries and keys; several heads of queries for one of keys and values."""

    def __init__(self, pairs, form):
        super().__init__()
        self.embed, self.head = nn.Linear(5, 16), nn.Linear(16, 3)
        self.q, self.o = nn.Linear(16, 16, bias=False), nn.Linear(16, 16)
        self.k, self.v = (nn.Linear(16, 4 * pairs, bias=False) for _ in range(2))
        self.pairs, self.form = pairs, form
        self.register_buffer("inverse", torch.tensor([1.0, 0.3]))

    def angles(self, x):
        places = torch.arange(x.shape[1], device=x.device)[None, None].to(self.inverse)
        angles = (self.inverse[None, :, None].expand(1, -1, 1) @ places).transpose(1, 2)
        angles = torch.cat([angles, angles], -1)[:, None]  # (1, 1, places, width)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)

    def heads(self, x):
        return x.view(*x.shape[:2], -1, 4).transpose(1, 2)

    def forward(self, x):
        x = self.embed(x)
        rows, places, _ = x.shape
        cos, sin = self.angles(x)
        q, k, v = (self.heads(layer(x)) for layer in (self.q, self.k, self.v))
        q, k = (t * cos + torch.cat([-t[..., 2:], t[..., :2]], -1) * sin for t in (q, k))
        if self.form == "grouped":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            each = 4 // self.pairs
            k, v = (
                t[:, :, None].expand(rows, self.pairs, each, places, 4).reshape(rows, 4, places, 4)
                for t in (k, v)
            )
            mask = torch.full((places, places), -9.0, dtype=x.dtype).triu(1)
            if self.form == "fused":
                y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            else:
                y = (q @ k.transpose(-1, -2) / 2 + mask).softmax(-1) @ v
        return self.head((x + self.o(y.transpose(1, 2).reshape(rows, places, -1))).mean(1))


@pytest.mark.parametrize(
    ("pairs", "form"), [(4, "fused"), (2, "written"), (2, "grouped")], ids=["plain", "shared", "grouped"]
)
def test_heads_of_rotary_attention_go_whole(pairs, form):
    found = sizes(exact(Rotary(pairs, form), torch.randn(4, 6, 5)))
    assert found["embed"] == 16 and pairs in (found.get("q"), found.get("k"))


class Biased(nn.Module):
    """Attention whose scores have something of each head's own added: learnt, computed, or made by a mask."""

    def __init__(self, kind, fused):
        super().__init__()
        self.kind, self.fused = kind, fused
        self.embed, self.qkv = nn.Linear(5, 12), nn.Linear(12, 36)
        self.o, self.head = nn.Linear(12, 12), nn.Linear(12, 3)
        if kind == "table":
            self.table = nn.Parameter(torch.zeros(11, 4))
            self.register_buffer("index", torch.arange(6)[:, None] - torch.arange(6) + 5)
        elif kind == "embedding":
            self.near = nn.Embedding(6, 4)
        elif kind == "parameter":
            self.bias = nn.Parameter(torch.zeros(1, 4, 6, 6))

    def bias_of(self, x):
        rows, places, _ = x.shape
        if self.kind == "table":
            return (
                self.table[self.index.view(-1)].view(places, places, -1).permute(2, 0, 1)[None].contiguous()
            )
        if self.kind == "embedding":
            apart = (torch.arange(places)[:, None] - torch.arange(places)).abs()
            return self.near(apart).permute(2, 0, 1)[None]
        if self.kind == "parameter":
            return self.bias
        if self.kind == "slopes":
            apart = -(torch.arange(places)[:, None] - torch.arange(places)).abs().to(x.dtype)
            return torch.tensor([0.5, 0.25, 0.125, 0.06], dtype=x.dtype)[:, None, None] * apart
        padded = (x[..., 0] > 1).view(rows, 1, 1, places).expand(-1, 4, -1, -1).reshape(rows * 4, 1, places)
        return torch.zeros_like(padded, dtype=x.dtype).masked_fill(padded, -9.0).view(rows, 4, 1, places)

    def forward(self, x):
        bias, h = self.bias_of(x), self.embed(x)
        rows, places, _ = x.shape
        q, k, v = self.qkv(h).view(rows, places, 3, 4, 3).permute(2, 0, 3, 1, 4)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        else:
            y = (q @ k.transpose(-1, -2) + bias).softmax(-1) @ v
        return self.head((h + self.o(y.transpose(1, 2).reshape(rows, places, -1))).mean(1))


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "written"])
@pytest.mark.parametrize("kind", ["table", "embedding", "parameter", "slopes", "padding"])
def test_heads_go_with_what_is_added_to_their_scores(kind, fused):
    analysis = exact(Biased(kind, fused), torch.randn(4, 6, 5))
    assert {"embed": 12, "qkv": 4}.items() <= sizes(analysis).items()


class Waves(nn.Module):
    """Positions that are computed meet the units they are added to."""

    def __init__(self):
        super().__init__()
        self.embed, self.fc, self.head = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        places = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * torch.tensor([1.0, 0.3, 0.1, 0.03]).to(x)
        x = self.embed(x) + torch.cat([places.sin(), places.cos()], -1)
        return self.head(self.fc(x.relu()).tanh().mean(1))


class NormedHeads(nn.Module):
    """Every head's own root mean square, written out, and a scale that all of them share."""

    def __init__(self):
        super().__init__()
        self.embed, self.fc, self.head = nn.Linear(5, 12), nn.Linear(12, 6), nn.Linear(6, 3)
        self.scale = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        heads = self.embed(x).view(len(x), 4, 3)
        heads = self.scale * (heads * torch.rsqrt(heads.pow(2).mean(-1, keepdim=True) + 1e-6))
        return self.head(self.fc(heads.flatten(1)).tanh())


def test_heads_go_with_their_own_statistics():
    analysis = exact(NormedHeads(), torch.randn(4, 5))
    assert sizes(analysis) == {"embed": 4, "fc": 6}


class CheckedSkip(nn.Module):
    """A type is checked of a scale that is read beside the branch, in a module of the branch."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        self.inner.scale = nn.Parameter(torch.zeros(6))

    def forward(self, x):
        y = x + self.inner(x.relu()).tanh()
        return self.head(y * self.inner.scale.to(torch.float32).to(x.dtype))


def test_a_section_leaves_what_others_read():
    analysis = analyse(randomise_(CheckedSkip().double()), torch.randn(2, 6, dtype=torch.float64))
    assert analysis.groups[-1].optional
    small = analysis.cut({analysis.groups[-1].name: torch.tensor([False])})
    assert small.inner.scale.shape == (6,)


def test_numbers_without_units_are_selected_from():
    analysis = exact(Waves(), torch.randn(4, 6, 5))
    assert sizes(analysis) == {"embed": 8, "fc": 6}


class OneKeyForAll(nn.Module):
    """Heads of queries over one set of keys and values that has units of its own."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.head = (
            nn.Linear(5, 12),
            nn.Linear(5, 3),
            nn.Linear(5, 7),
            nn.Linear(7, 3),
        )

    def forward(self, x):
        q = self.q(x).view(*x.shape[:2], 4, 3).transpose(1, 2)
        scores = torch.einsum("bhnk,bmk->bhnm", q, self.k(x)).softmax(-1)
        return self.head((scores @ self.v(x).tanh()[:, None]).mean((1, 2)))


def test_what_all_heads_share_is_one_unit_in_all_of_them():
    analysis = exact(OneKeyForAll(), torch.randn(4, 6, 5))
    assert sizes(analysis) == {"q": 3, "v": 7}


class Neighbours(nn.Module):
    """A graph convolution: which nodes are near is a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("near", torch.rand(6, 6, generator=torch.Generator().manual_seed(0)))
        self.fc1, self.fc2, self.head = nn.Linear(5, 8), nn.Linear(8, 7), nn.Linear(7, 3)

    def forward(self, x):
        return self.head((self.near @ self.fc2((self.near @ self.fc1(x)).relu())).tanh().mean(1))


def test_units_pass_through_a_matrix_of_neighbours():
    assert sizes(exact(Neighbours(), torch.randn(4, 6, 5))) == {"fc1": 8, "fc2": 7}


def test_a_cut_that_fails_half_way_has_changed_nothing(monkeypatch):
    x = torch.randn(4, 3, 7, 7)
    analysis = analyse(WrittenSizes(), x)
    network, alive = analysis.gated.eval(), drawn_alive(analysis, 1)
    optimiser = torch.optim.Adam(network.parameters())
    network(x).sum().backward()
    optimiser.step()
    before = [
        (p, p.shape, p.grad.clone(), optimiser.state[p]["exp_avg"].clone()) for p in network.parameters()
    ]
    outputs, rebuild = network(x), GraphNetwork._rebuild

    def fails_once(self, plain=None):
        if plain is not None:
            raise RuntimeError("shape '[1, 8, 1, 1]' is invalid")
        rebuild(self)

    monkeypatch.setattr(GraphNetwork, "_rebuild", fails_once)
    with pytest.raises(RemovalError, match=r"invalid\), so nothing was removed"):
        network.cut_(alive, optimiser)
    monkeypatch.undo()
    assert torch.equal(network(x), outputs)
    for parameter, shape, gradient, moment in before:
        assert parameter.shape == shape and torch.equal(parameter.grad, gradient)
        assert torch.equal(optimiser.state[parameter]["exp_avg"], moment)
    network.cut_(alive, optimiser)
    assert network.parameter_count() < sum(p.numel() for p in WrittenSizes().parameters())


class RowsByHeads(nn.Module):
    """Scores of all rows and heads along one dimension, as attention was written before it was fused."""

    def __init__(self):
        super().__init__()
        self.embed, self.qkv = nn.Linear(5, 12), nn.Linear(12, 36)
        self.o, self.head = nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x):
        rows, places, _ = x.shape
        q, k, v = (
            t.reshape(rows, places, 4, 3).transpose(1, 2).reshape(rows * 4, places, 3)
            for t in self.qkv(self.embed(x)).chunk(3, -1)
        )
        padded = (x[..., 0] > 1).to(x.dtype)[:, None, None].expand(rows, 4, 1, places)
        scores = torch.bmm(q, k.transpose(1, 2)) - 9 * padded.reshape(rows * 4, 1, places)
        y = torch.bmm(scores.softmax(-1), v).view(rows, 4, places, 3).transpose(1, 2)
        return self.head(self.o(y.reshape(rows, places, 12)).mean(1))


def test_masks_by_rows_and_heads_are_exact_for_any_number_of_rows():
    assert {"embed": 12, "qkv": 4}.items() <= sizes(exact(RowsByHeads(), torch.randn(5, 6, 5))).items()


class SinglePrecisionNorm(nn.Module):
    """A norm that computes in single precision, whatever the network's type, as language models have it."""

    def __init__(self):
        super().__init__()
        self.embed, self.fc, self.head = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 3)
        self.weight = nn.Parameter(torch.zeros(8))

    def forward(self, x):
        h = self.embed(x)
        y = h.to(torch.float32)
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)
        y = F.layer_norm(y, (8,)).softmax(-1).to(h.dtype)
        return self.head(self.fc(self.weight * y + h).tanh())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_parts_in_another_precision_keep_it(dtype):
    network = randomise_(SinglePrecisionNorm().to(dtype))
    x = torch.randn(4, 5).to(dtype)
    analysis = analyse(network, x, layers="none")
    assert sizes(analysis) == {"embed": 8, "fc": 6}
    alive = drawn_alive(analysis, 1)
    for training in (False, True):
        masked = run(analysis.gated, (x,), training, gates_of(alive, dtype))
        single = run(analysis.gated, (x,), training, gates_of(alive, torch.float32))
        small = run(analysis.cut(alive), (x,), training)
        assert masked.dtype == single.dtype == dtype
        assert difference(small, masked) < (1e-6 if dtype == torch.float64 else 3e-2)
