"""A small transformer on integer tokens: gates on embedding dimensions, heads, hidden units and sections.

Token and position embeddings, two encoder blocks, the mean over tokens, a linear layer. The library ships no
text and downloads none, so that by default it learns ``digits-tokens``: scikit-learn's 8 × 8 digits read row
by row as 64 tokens, the 17 grey levels. That is no language, only a sequence with a vocabulary. For your own
text hand in token ids (rows, length) and classes (rows,), as ``data`` does.

Prices and recipe were chosen on a fifth of its training rows, held out.
"""

import torch
import torch.nn.functional as F
from torch import nn

import bayesprune as bp

EMBEDDING = "blocks_0_out"  # the group of embedding dimensions, named after the first layer that adds to them
PRICES = {EMBEDDING: 20.0, "*qkv": 20.0, "layers": 20.0, "*": 2.0}  # nats a unit, for 1,437 rows
INITIAL_INCLUSION = 0.98
WEIGHT_SCALE = 0.25  # prior standard deviation of a weight
WIDTH, HEADS, HEAD_WIDTH, HIDDEN, DEPTH = 32, 4, 8, 64, 2

EPOCHS = {"digits-tokens": 60, "*": 30}
BATCH_SIZE = {"digits-tokens": 32, "*": 128}
RECIPE = bp.Recipe(
    gates=bp.GateSteps(learning_rate=0.1, momentum=0.95, clip=0.5, every=1),
    learning_rate=3e-3,
    compact_learning_rate=3e-3,
    shrink=bp.Shrink(every=20),
    warmup=0.2,
    ramp=0.3,
    decide=0.7,
)


def data():
    """Sequences of 64 tokens, of 17 kinds and ten classes."""
    return bp.data.load("digits-tokens")


class Block(nn.Module):
    """Attention, then two linear layers on every token; each is normed before and added after.

    The number of heads follows from the weights, so that the class runs on when heads are gone.
    """

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * HEADS * HEAD_WIDTH), nn.Linear(HEADS * HEAD_WIDTH, WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x):
        """(B, T, 32) → (B, T, 32)."""
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, -1, HEAD_WIDTH))  # (B, T, 3, heads, 8)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, T, 8)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)  # (B, T, heads, 8)
        x = x + self.out(y.flatten(2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))  # (B, T, 32)


class TextClassifier(nn.Module):
    """Tokens and positions, encoder blocks, and a linear layer on the mean."""

    def __init__(self, vocabulary, length, classes):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, WIDTH), nn.Embedding(length, WIDTH)
        for table in (self.tokens, self.positions):
            nn.init.normal_(table.weight, std=0.05)
        self.register_buffer("places", torch.arange(length))
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, classes)

    def forward(self, x):
        """(B, T) int64 → (B, classes)."""
        x = self.tokens(x) + self.positions(self.places)  # (B, T, 32)
        return self.head(self.norm(self.blocks(x)).mean(1))  # (B, classes)


def prices(rows):
    """Nats a unit: evidence grows with the rows, so on fewer of them a unit has to earn less."""
    return {group: price * (rows / 1_437) ** 0.75 for group, price in PRICES.items()}


def model(train, classes, price=None):
    """The gated model for a training split: ``train.x`` (rows, length) int64, ``train.y`` (rows,)."""
    price = prices(len(train.x)) if price is None else price
    return bp.gate(
        TextClassifier(int(train.x.max()) + 1, train.x.shape[1], classes),
        train.x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(price)),
        likelihood=bp.Categorical(rows=len(train.x)),
        weights=bp.priors.NormalWeights(scale=WEIGHT_SCALE),
        initial_inclusion=INITIAL_INCLUSION,
    )
