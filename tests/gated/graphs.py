"""Small networks that are no rows of layers, with few units, for sums over all configurations of gates."""

import torch
import torch.nn.functional as F
from torch import nn


class Residual(nn.Module):
    """Linear maps of one vector a row: a stream of three units, normed, and two units beside it."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.up = nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 2)
        self.down, self.head = nn.Linear(2, 3), nn.Linear(3, 2)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.down(self.up(self.norm(x)).tanh()))


class Convolutions(nn.Module):
    """A convolution used twice, a depthwise one and a grouped one."""

    def __init__(self):
        super().__init__()
        self.stem, self.twice = nn.Conv1d(1, 2, 2), nn.Conv1d(2, 2, 3, padding=1)
        self.norm, self.depthwise = nn.BatchNorm1d(2), nn.Conv1d(2, 2, 2, groups=2, bias=False)
        self.wide, self.grouped = nn.Conv1d(2, 4, 1), nn.Conv1d(4, 4, 1, groups=2)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        x = self.norm(x + self.twice(self.twice(x).tanh()))
        return self.head(self.grouped(self.wide(self.depthwise(x)).tanh()).mean(2))


class Tokens(nn.Module):
    """Embeddings, two heads of attention, and a bare parameter as a weight; linear maps of tokens."""

    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(5, 2), nn.Parameter(torch.randn(1, 3, 2))
        self.qkv, self.out, self.norm = nn.Linear(2, 12), nn.Linear(4, 2), nn.LayerNorm(2)
        self.mix = nn.Parameter(torch.randn(2, 2))
        self.head = nn.Linear(2, 2)

    def forward(self, x):
        x = self.tokens(x) + self.positions
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, -1, 2)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return self.head(x.mean(1) @ self.mix)


class Tied(nn.Module):
    """The embedding table is the output layer too."""

    def __init__(self):
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(4, 3), nn.Linear(3, 2), nn.Linear(2, 3)
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        x = self.embed(x)
        return self.head((x + self.down(self.up(x).tanh())).mean(1))


class OwnAttention(nn.Module):
    """PyTorch's own attention module, whose projections are parameters without a layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.attention = nn.Linear(2, 4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.up, self.head = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.up(x.mean(1)).tanh())


class Recurrence(nn.Module):
    """A recurrence, a product by einsum, and a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.steps, self.mix = nn.GRU(2, 3, batch_first=True), nn.Parameter(torch.randn(3, 4))
        self.wider, self.head = nn.ConvTranspose1d(4, 3, 2), nn.Linear(3, 2)

    def forward(self, x):
        x = torch.einsum("btc,cd->bdt", self.steps(x)[0], self.mix)
        return self.head(self.wider(x.tanh()).mean(2))


def numbers(*shape):
    return lambda rows: torch.randn(rows, *shape, generator=torch.Generator().manual_seed(5)).double()


def integers(kinds, *shape):
    return lambda rows: torch.randint(kinds, (rows, *shape), generator=torch.Generator().manual_seed(5))


INPUTS = {
    Residual: numbers(2),
    Convolutions: numbers(1, 4),
    Tokens: integers(5, 3),
    Tied: integers(4, 3),
    OwnAttention: numbers(3, 2),
    Recurrence: numbers(3, 2),
}
"""Network → its inputs for a number of rows."""
