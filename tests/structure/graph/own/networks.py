"""Networks that keep their sizes as numbers, in the ways in which transformers do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

WIDTH, HEADS, SIZE = 12, 3, 8
"""Of the stream; of attention's heads, and of one of them."""


class Fused(nn.Module):
    """Attention with queries, keys and values in one product: its number of heads is noted."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = HEADS, SIZE, HEADS * SIZE
        self.scale = SIZE**-0.5
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * HEADS * SIZE), nn.Linear(HEADS * SIZE, WIDTH)

    def forward(self, x):  # (B, T, C)
        rows, length, _ = x.shape
        qkv = self.qkv(x).reshape(rows, length, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, T, D) each
        y = (q * self.scale @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(rows, length, self.attn_dim))


class Chunked(Fused):
    """The same, taken apart by ``chunk``, and put together by the number of heads."""

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)) for part in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v)))
        return self.proj(y.transpose(1, 2).reshape(*x.shape[:-1], self.num_heads * self.head_dim))


class Product(nn.Module):
    """A linear layer whose weight stands the other way round, and that notes how much it returns."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.nf = outputs
        self.weight, self.bias = (
            nn.Parameter(torch.randn(inputs, outputs) / 3),
            nn.Parameter(torch.randn(outputs)),
        )

    def forward(self, x):
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], self.nf)


class Split(nn.Module):
    """Attention whose product is taken apart by the size of a part."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.split_size = HEADS, HEADS * SIZE
        self.c_attn, self.c_proj = Product(WIDTH, 3 * HEADS * SIZE), Product(HEADS * SIZE, WIDTH)

    def forward(self, x):
        parts = self.c_attn(x).split(self.split_size, dim=2)
        q, k, v = (part.view(*part.shape[:2], -1, SIZE).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        return self.c_proj(y.reshape(*x.shape[:2], -1))


class Apart(nn.Module):
    """Attention of three products, with the numbers ``n_heads`` and ``inner_dim``."""

    def __init__(self):
        super().__init__()
        self.n_heads, self.key_value_proj_dim, self.inner_dim = HEADS, SIZE, HEADS * SIZE
        self.q, self.k, self.v = (nn.Linear(WIDTH, self.inner_dim, bias=False) for _ in range(3))
        self.o = nn.Linear(self.inner_dim, WIDTH, bias=False)

    def _heads(self, states):
        return states.view(states.shape[0], -1, self.n_heads, self.key_value_proj_dim).transpose(1, 2)

    def forward(self, x):
        y = F.scaled_dot_product_attention(*(self._heads(part(x)) for part in (self.q, self.k, self.v)))
        return self.o(y.transpose(1, 2).contiguous().view(x.shape[0], -1, self.inner_dim))


class Listed(nn.Module):
    """One product of parts of several sizes, which a list has."""

    def __init__(self):
        super().__init__()
        self.sizes = [HEADS * SIZE, HEADS * SIZE, HEADS * SIZE, 10]
        self.wide, self.proj, self.last = (
            nn.Linear(WIDTH, sum(self.sizes)),
            nn.Linear(24, WIDTH),
            nn.Linear(10, WIDTH),
        )

    def forward(self, x):
        q, k, v, more = self.wide(x).split(self.sizes, dim=-1)
        q, k, v = (part.unflatten(-1, (-1, SIZE)).transpose(1, 2) for part in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.proj(y) + self.last(F.gelu(more))


class Windows(nn.Module):
    """Attention inside of windows of two positions, with a bias for each head."""

    def __init__(self):
        super().__init__()
        self.window, self.num_heads = 2, HEADS
        self.bias = nn.Parameter(torch.randn(HEADS, 2, 2))
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * HEADS * SIZE), nn.Linear(HEADS * SIZE, WIDTH)

    def forward(self, x):
        rows, length, width = x.shape
        x = x.view(rows * length // self.window, self.window, width)
        qkv = self.qkv(x).view(x.shape[0], self.window, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        y = (qkv[0] @ qkv[1].transpose(-2, -1) / SIZE**0.5 + self.bias).softmax(-1) @ qkv[2]
        return self.proj(y.transpose(1, 2).flatten(2)).view(rows, length, -1)


class Block(nn.Module):
    """Attention and a feed-forward part, each beside a shortcut."""

    def __init__(self, attention):
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(WIDTH), attention, nn.LayerNorm(WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 16), nn.Linear(16, WIDTH)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Transformer(nn.Module):
    """Two blocks over four positions."""

    def __init__(self, attention):
        super().__init__()
        self.stem, self.head = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 4)
        self.blocks = nn.Sequential(*(Block(attention()) for _ in range(2)))

    def forward(self, x):  # (B, 4, 5)
        return self.head(self.blocks(self.stem(x)).mean(1))


ATTENTIONS = [Fused, Chunked, Split, Apart, Listed, Windows]
