"""Bring your own network: a small residual network on the embedded digits, gated in five lines.

    python examples/own_network.py [--epochs 40]

Any network that PyTorch can trace will do. Units that are added, concatenated or shuffled together are found
and removed together; what cannot be removed exactly stays, and ``bp.analyse`` says why. What comes out is the
network's own class again, only smaller; or, if a whole block went, a graph over the same parameter names.
"""

import argparse

import torch.nn.functional as F
from torch import nn

import bayesprune as bp

PRICE = 10.0  # nats of log-likelihood that a channel has to earn on the 1,437 training rows


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, channels, wider, stride):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, wider, 3, stride, 1, bias=False), nn.BatchNorm2d(wider)
        self.conv2, self.norm2 = nn.Conv2d(wider, wider, 3, 1, 1, bias=False), nn.BatchNorm2d(wider)
        self.shortcut = nn.Conv2d(channels, wider, 1, stride)

    def forward(self, x):
        """(B, channels, H, W) → (B, wider, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))  # (B, wider, H, W)
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Residual(nn.Module):
    """A stem, three blocks, and a linear layer on channel means."""

    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, 2, 1)
        self.block1, self.block2, self.block3 = Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)
        self.head = nn.Linear(64, classes)

    def forward(self, x):
        """(B, 1, 28, 28) → (B, classes)."""
        x = self.block3(self.block2(self.block1(F.relu(self.stem(x)))))  # (B, 64, 4, 4)
        return self.head(x.mean((2, 3)))


def main():
    """Gate, fit, prune, evaluate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=40)
    arguments = parser.parse_args()
    digits = bp.data.load("digits")
    x, y = digits.train.x, digits.train.y  # (1437, 1, 28, 28), (1437,)

    prior = bp.priors.BernoulliGates(bp.priors.Flattening(PRICE))
    gated = bp.gate(Residual(10), x[:1], prior=prior, likelihood=bp.Categorical(rows=len(x)))
    result = bp.fit(gated, (x, y), epochs=arguments.epochs, batch_size=32)
    small = bp.prune(result)

    quality = bp.evaluate(small, (digits.test.x, digits.test.y), result.likelihood)
    kept = sum(p.numel() for p in small.parameters())
    print(
        f"{type(small).__name__}: {quality.score:.2f} % error "
        f"with {kept:,} of {gated.dense_parameters:,} numbers"
    )
    print("channels kept:", dict(zip((g.name for g in gated.groups), result.architecture, strict=True)))


if __name__ == "__main__":
    main()
