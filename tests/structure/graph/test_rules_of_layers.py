"""Rules for layers that are rarer: cells, first states, projections, experts, transforms, computed weights.

Each network is compared cut and masked, in both modes; and what of it may go is written down.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.structure.graph.test_rules import exact, sizes

FOUND = {}


def network(found, *inputs):
    """Register a class: the groups that must be found in it, and its inputs."""

    def register(build):
        FOUND[build.__name__] = build, found, inputs
        return build

    return register


VECTORS, SEQUENCES, IMAGES = torch.randn(4, 5), torch.randn(4, 6, 5), torch.randn(4, 3, 8, 8)


class Cell(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.fc, self.cell, self.head = nn.Linear(5, 7), kind(7, 6), nn.Linear(6, 3)

    def forward(self, x):
        y, state = self.fc(x).relu(), None
        for step in range(3):
            state = self.cell(y * (step + 1), state)
        return self.head(state[0] * state[1] if isinstance(state, tuple) else state)


@network({"fc": 7, "cell": 6}, VECTORS)
def lstm_cell():
    return Cell(nn.LSTMCell)


@network({"fc": 7, "cell": 6}, VECTORS)
def gru_cell():
    return Cell(nn.GRUCell)


@network({"fc": 7, "cell": 6}, VECTORS)
class GivenState(Cell):
    """A first state that is no zeros, and belongs to no unit."""

    def __init__(self):
        super().__init__(nn.RNNCell)

    def forward(self, x):
        state = torch.linspace(-1, 1, 6, dtype=x.dtype).expand(len(x), 6)
        for _ in range(2):
            state = self.cell(self.fc(x).relu(), state)
        return self.head(state)


@network({"rnn": 6}, SEQUENCES)
class LearntState(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(5, 6, num_layers=2, batch_first=True), nn.Linear(6, 3)
        self.hidden, self.carried = (nn.Parameter(torch.zeros(2, 1, 6)) for _ in range(2))

    def forward(self, x):
        first = self.hidden.expand(-1, len(x), -1).contiguous(), self.carried.repeat(1, len(x), 1)
        return self.head(self.rnn(x, first)[0][:, -1])


@network({"read": 6, "mix": 7}, SEQUENCES)
class Translator(nn.Module):
    """The state of one recurrence is the first one of another, which attends to its outputs."""

    def __init__(self):
        super().__init__()
        self.read, self.write = (nn.GRU(5, 6, batch_first=True) for _ in range(2))
        self.mix, self.head = nn.Linear(12, 7), nn.Linear(7, 3)

    def forward(self, x):
        seen, state = self.read(x)
        said, _ = self.write(x, state)
        attention = torch.bmm(said, seen.transpose(1, 2)).softmax(-1)
        return self.head(self.mix(torch.cat([torch.bmm(attention, seen), said], -1)).tanh()[:, -1])


@network({"fc": 7, "rnn": 4, "rnn_2": 6}, SEQUENCES)
class Projected(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 7)
        self.rnn = nn.LSTM(7, 6, 2, proj_size=4, batch_first=True, bidirectional=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.rnn(self.fc(x).tanh())[0][:, -1])


@network({"conv1": 8, "conv2": 6}, IMAGES)
class NeighbouringChannels(nn.Module):
    """Attention over channels by a convolution along them: what has gone is zero to its neighbours."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, 3)
        self.along = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x):
        x = self.conv1(x)
        scale = self.along(x.mean((2, 3))[:, None])[:, 0].sigmoid()
        return self.head(self.conv2(x * scale[:, :, None, None]).relu().mean((2, 3)))


class Standardised(nn.Conv2d):
    def __init__(self, inputs, outputs, form):
        super().__init__(inputs, outputs, 3)
        self.gain, self.form = nn.Parameter(torch.ones(outputs, 1, 1, 1)), form

    def forward(self, x):
        if self.form == "norm":
            flat = self.weight.reshape(1, self.out_channels, -1)
            weight = F.batch_norm(flat, None, None, self.gain.view(-1), training=True, momentum=0.0)
            weight = weight.reshape_as(self.weight)
        else:
            variance, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True)
            weight = self.gain * (self.weight - mean) * torch.rsqrt(variance * self.weight[0].numel() + 1e-4)
        return F.conv2d(x, weight, self.bias)


class StandardisedNetwork(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.conv1, self.conv2 = Standardised(3, 8, form), Standardised(8, 6, form)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.conv2(self.conv1(x).relu()).relu().mean((2, 3)))


@network({"conv1": 8, "conv2": 6}, IMAGES)
def standardised_by_a_norm():
    return StandardisedNetwork("norm")


@network({"conv1": 8, "conv2": 6}, IMAGES)
def standardised_by_hand():
    return StandardisedNetwork("written")


@network({"conv1": 8, "pools_0_1": 4, "pools_1_1": 4, "conv2": 6}, torch.randn(4, 3, 9, 9))
class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(16, 6, 3), nn.Conv2d(6, 3, 1)
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), nn.Conv2d(8, 4, 1), nn.ReLU()) for size in (1, 3)
        )

    def forward(self, x):
        x = self.conv1(x)
        parts = [F.interpolate(pool(x), x.shape[2:], mode="bilinear") for pool in self.pools]
        return self.head(self.conv2(torch.cat([x, *parts], 1)).relu())


@network({"conv1": 8, "conv3": 6}, IMAGES)
class Unpooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.conv3, self.head = nn.Conv2d(8, 6, 3), nn.Linear(6, 3)

    def forward(self, x):
        x, places = F.max_pool2d(self.conv1(x), 2, return_indices=True)
        return self.head(self.conv3(F.max_unpool2d(self.conv2(x).tanh(), places, 2)).relu().mean((2, 3)))


@network({"embed": 8, "k": 3, "v": 5}, torch.randn(4, 6, 8))
class LambdaLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.q = nn.Linear(8, 8), nn.Linear(8, 12, bias=False)
        self.k, self.v = nn.Linear(8, 3, bias=False), nn.Linear(8, 5, bias=False)
        self.positions, self.head = nn.Parameter(torch.zeros(6, 6, 3)), nn.Linear(20, 3)

    def forward(self, x):
        x = self.embed(x).tanh()
        q, k, v = self.q(x).view(len(x), 6, 4, 3).transpose(1, 2), self.k(x).softmax(1), self.v(x)
        content = q @ (k.transpose(1, 2) @ v)[:, None]
        place = torch.einsum("bhnk,bnkv->bhnv", q, torch.einsum("nmk,bmv->bnkv", self.positions, v))
        return self.head((content + place).transpose(1, 2).reshape(len(x), 6, -1).mean(1))


@network({"embed": 8, "first": 6}, VECTORS)
class Experts(nn.Module):
    """Experts whose weights are one tensor, and a gate for each."""

    def __init__(self):
        super().__init__()
        self.embed, self.choose, self.head = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.first, self.bias = nn.Parameter(torch.zeros(3, 8, 6)), nn.Parameter(torch.zeros(3, 6))
        self.second = nn.Parameter(torch.zeros(3, 6, 8))

    def forward(self, x):
        x = self.embed(x)
        share = self.choose(x).softmax(-1)
        y = torch.bmm(x[None].expand(3, -1, -1), self.first) + self.bias[:, None]
        return self.head(x + (torch.bmm(y.relu(), self.second) * share.T[..., None]).sum(0))


@network({"embed": 8, "fused": 6}, VECTORS)
class FusedProjections(nn.Module):
    """Two projections in one tensor, taken apart when they are used."""

    def __init__(self):
        super().__init__()
        self.embed, self.out, self.head = nn.Linear(5, 8), nn.Linear(6, 8), nn.Linear(8, 3)
        self.fused, self.bias = nn.Parameter(torch.zeros(12, 8)), nn.Parameter(torch.zeros(12))

    def forward(self, x):
        x, (gate, value) = self.embed(x), self.fused.chunk(2)
        x = x + self.out(F.silu(F.linear(x, gate, self.bias[:6])) * F.linear(x, value, self.bias[6:]))
        return self.head(x)


@network({"ours": 8, "attention": 2}, torch.randn(4, 6, 8), torch.randn(4, 5, 8))
class CrossAttention(nn.Module):
    """Both inputs are read by columns of one tensor, and so are one group."""

    def __init__(self):
        super().__init__()
        self.ours, self.theirs = nn.Linear(8, 8), nn.Linear(8, 8)
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x, y):
        x, y = self.ours(x).tanh(), self.theirs(y).tanh()
        return self.head(self.attention(x, y, y)[0].mean(1))


@network({"first": 7, "made": 6}, VECTORS)
class BiasFromInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.shift, self.head = nn.Linear(5, 7), nn.Parameter(torch.zeros(2, 6)), nn.Linear(6, 3)
        self.made = nn.Linear(7, 6, bias=False)

    def forward(self, x):
        return self.head(F.linear(self.first(x).tanh(), self.made.weight, self.shift.cos().sum(0)).relu())


@network({"embed": 8, "first": 6}, VECTORS)
class PickedExperts(nn.Module):
    """The weights of each row's expert are picked from one tensor."""

    def __init__(self):
        super().__init__()
        self.embed, self.choose, self.head = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.first, self.second = nn.Parameter(torch.zeros(3, 6, 8)), nn.Parameter(torch.zeros(3, 8, 6))

    def forward(self, x):
        x = self.embed(x)
        best = (x.detach().sum(-1) > 0).long()
        y = torch.bmm(self.first[best], x[..., None]).relu()
        return self.head(x + torch.bmm(self.second[best], y)[..., 0])


@network({"splines": 6}, VECTORS)
class Splines(nn.Module):
    """Functions of each number as sums of bumps, whose weights are reshaped."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(5, 7), nn.Linear(6, 3)
        self.splines = nn.Parameter(torch.zeros(6, 7, 4))
        self.register_buffer("grid", torch.linspace(-1, 1, 4))

    def forward(self, x):
        bumps = torch.exp(-((self.embed(x).tanh()[..., None] - self.grid) ** 2))
        return self.head(F.linear(bumps.view(len(x), -1), self.splines.view(6, -1)).tanh())


@network({"weight": 6, "pointwise": 7}, torch.randn(4, 16, 8))
class FourierLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.pointwise, self.head = nn.Linear(8, 6), nn.Linear(6, 7), nn.Linear(7, 3)
        self.weight = nn.Parameter(torch.zeros(6, 7, 4, 2))

    def forward(self, x):
        x = self.embed(x).transpose(1, 2)
        y = torch.einsum("bik,iok->bok", torch.fft.rfft(x)[..., :4], torch.view_as_complex(self.weight))
        y = torch.fft.irfft(y, n=16).transpose(1, 2) + self.pointwise(x.transpose(1, 2))
        return self.head(y.tanh().mean(1))


@network({"bag": 6, "fc": 5}, torch.randint(9, (4, 6)))
class Bags(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag, self.fc, self.head = nn.EmbeddingBag(9, 6), nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.fc(self.bag(x).tanh()).relu())


@network({"first": 7, "second": 6, "both": 8}, VECTORS)
class TwoSides(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 7), nn.Linear(5, 6)
        self.both, self.head = nn.Bilinear(7, 6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.both(self.first(x).tanh(), self.second(x).tanh()).relu())


@network({"embed": 7, "weight": 4}, SEQUENCES)
class FromTheLeft(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.weight = nn.Linear(5, 7), nn.Parameter(torch.zeros(4, 7))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.weight @ self.embed(x).tanh().transpose(1, 2)
        return self.head(x.transpose(1, 2).relu().mean(1))


@network({"embed": 7}, VECTORS)
class WeightsFromInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.weights, self.head = nn.Linear(5, 7), nn.Linear(5, 28), nn.Linear(4, 3)

    def forward(self, x):
        weights = self.weights(x).view(-1, 4, 7)
        return self.head(torch.bmm(weights, self.embed(x).tanh()[..., None])[..., 0].relu())


@network({"transformer_encoder_layers_0_linear1": 12}, torch.randn(4, 6, 8), torch.randn(4, 5, 8))
class MasksByValue(nn.Module):
    """A mask of causes, and one of padding, in PyTorch's own layers."""

    def __init__(self):
        super().__init__()
        self.transformer = nn.Transformer(8, 2, 1, 1, 12, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x, y):
        mask = nn.Transformer.generate_square_subsequent_mask(y.shape[1]).to(x.dtype)
        padded = (x[..., 0] > 1).to(x.dtype) * -9.0
        return self.head(self.transformer(x, y, tgt_mask=mask, src_key_padding_mask=padded).mean(1))


@pytest.mark.filterwarnings("ignore:Multiply-accumulates")
@pytest.mark.parametrize("name", FOUND)
def test_rarer_layers_are_exact_and_what_of_them_may_go(name):
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # in evaluation it puts zeros where positions are padded
    try:
        build, found, inputs = FOUND[name]
        groups = sizes(exact(build(), *inputs))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    assert found.items() <= groups.items()
