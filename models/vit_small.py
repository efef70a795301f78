"""A small vision transformer: gates on heads, hidden units, channels of the stream, and whole sections.

Dosovitskiy et al. (arXiv 2010.11929) at a size for small images: patches of 4 × 4, four blocks of width 64,
layer norms in front, and the mean over patches in place of a class token (Beyer, Zhai & Kolesnikov, arXiv
2205.01580). A head is one unit, and so is a channel of the stream that all blocks add to: the layer norms'
statistics are those of the channels that are left, so that removal stays exact.

Prices and recipe were chosen on a fifth of the digits' training rows, held out; on larger data nothing was
tried.
"""

import torch
import torch.nn.functional as F
from torch import nn

import bayesprune as bp
from bayesprune.errors import DataError

PRICES = {"patches": 10.0, "*qkv": 20.0, "layers": 20.0, "*": 2.0}  # nats a unit, for 1,437 rows
INITIAL_INCLUSION = 0.9
WEIGHT_SCALE = 0.25  # prior standard deviation of a weight
PATCH, WIDTH, HEADS, HEAD_WIDTH, HIDDEN, DEPTH = 4, 64, 4, 16, 128, 4

EPOCHS = {"digits*": 40, "*": 100}
BATCH_SIZE = {"digits*": 32, "*": 128}
RECIPE = bp.Recipe(
    gates=bp.GateSteps(learning_rate=0.1, momentum=0.95, clip=0.5, every=1),
    learning_rate=1e-3,
    compact_learning_rate=1e-3,
    shrink=bp.Shrink(every=20),
    warmup=0.2,
    ramp=0.3,
    decide=0.7,
)


class Attention(nn.Module):
    """Softmax attention; the number of heads follows from the weights, so that it runs on without some."""

    def __init__(self, width):
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * HEADS * HEAD_WIDTH), nn.Linear(HEADS * HEAD_WIDTH, width)

    def forward(self, x):
        """(B, T, width) → (B, T, width)."""
        qkv = self.qkv(x).unflatten(-1, (3, -1, HEAD_WIDTH))  # (B, T, 3, heads, 16)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, T, 16)
        y = F.scaled_dot_product_attention(q, k, v)  # (B, heads, T, 16)
        return self.out(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then two linear layers on every token; each is normed before and added after."""

    def __init__(self, width):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, width)

    def forward(self, x):
        """(B, T, width) → (B, T, width)."""
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class VisionTransformer(nn.Module):
    """Patches as tokens, blocks, and a linear layer on their mean."""

    def __init__(self, channels, height, width, classes):
        super().__init__()
        tokens = (height // PATCH) * (width // PATCH)
        self.patches = nn.Conv2d(channels, WIDTH, PATCH, PATCH)
        self.positions = nn.Parameter(0.02 * torch.randn(1, tokens, WIDTH))
        self.blocks = nn.Sequential(*(Block(WIDTH) for _ in range(DEPTH)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, classes)

    def forward(self, x):
        """(B, channels, H, W) → (B, classes)."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions  # (B, T, 64), T = H / 4 · W / 4
        return self.head(self.norm(self.blocks(x)).mean(1))  # (B, classes)


def prices(rows):
    """Nats a unit: evidence grows with the rows, so on fewer of them a unit has to earn less."""
    return {group: price * (rows / 1_437) ** 0.75 for group, price in PRICES.items()}


def model(train, classes, price=None):
    """The gated model for a training split: ``train.x`` (rows, channels, H, W), ``train.y`` (rows,)."""
    price = prices(len(train.x)) if price is None else price
    if train.x.ndim != 4:
        shape = tuple(train.x.shape[1:])
        raise DataError(f"Rows of shape {shape} are no images: choose --data digits, or a folder of images.")
    return bp.gate(
        VisionTransformer(*train.x.shape[1:], classes),
        train.x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(price)),
        likelihood=bp.Categorical(rows=len(train.x)),
        weights=bp.priors.NormalWeights(scale=WEIGHT_SCALE),
        initial_inclusion=INITIAL_INCLUSION,
    )
