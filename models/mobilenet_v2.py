"""MobileNetV2 for small images: gates on expanded channels, on streams that blocks add to, and on blocks.

The inverted residuals of Sandler et al. (arXiv 1801.04381, table 2): a 1 × 1 convolution widens six times, a
depthwise one looks around, a 1 × 1 one narrows again. A depthwise filter is one unit with the expanded
channel that it reads. The first image is not halved and neither is the one of the second stage, so that
32 × 32 pixels end as 4 × 4; otherwise the network is that of the paper.

Prices and recipe were chosen on a fifth of the digits' training rows, held out; on larger data nothing was
tried.
"""

import torch.nn.functional as F
from torch import nn

import bayesprune as bp

PRICES = {"layers": 10.0, "*": 2.0}  # nats a section, and a channel, for 1,437 rows
INITIAL_INCLUSION = 0.9
WEIGHT_SCALE = 0.25  # prior standard deviation of a weight
STEM, LAST = 32, 1280
STAGES = (  # (times wider, channels, blocks, stride)
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

EPOCHS = {"digits*": 20, "*": 160}
BATCH_SIZE = {"digits*": 32, "*": 128}
RECIPE = bp.Recipe(
    gates=bp.GateSteps(learning_rate=0.1, momentum=0.95, clip=0.5, every=1),
    shrink=bp.Shrink(every=20),
    learning_rate=2e-3,
    compact_learning_rate=2e-3,
    warmup=0.05,
    ramp=0.25,
    decide=0.6,
)


class Convolution(nn.Module):
    """A convolution without bias, and batch normalisation."""

    def __init__(self, channels, width, size=1, stride=1, groups=1):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, size, stride, size // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        """(B, channels, H, W) → (B, width, H / stride, W / stride)."""
        return self.norm(self.conv(x))


class InvertedResidual(nn.Module):
    """Wide inside, narrow at both ends, and linear where it ends."""

    def __init__(self, channels, width, times, stride):
        super().__init__()
        inside = times * channels
        self.expand = Convolution(channels, inside) if times > 1 else None
        self.depthwise = Convolution(inside, inside, 3, stride, groups=inside)
        self.narrow = Convolution(inside, width)
        self.adds = stride == 1 and channels == width

    def forward(self, x):
        """(B, channels, H, W) → (B, width, H / stride, W / stride)."""
        y = x if self.expand is None else F.relu6(self.expand(x))  # (B, inside, H, W)
        y = F.relu6(self.depthwise(y))  # (B, inside, H / stride, W / stride)
        y = self.narrow(y)
        return x + y if self.adds else y


class MobileNet(nn.Module):
    """A stem, seventeen inverted residuals, a wide 1 × 1 convolution, and a linear layer on channel means."""

    def __init__(self, channels, classes):
        super().__init__()
        self.stem = Convolution(channels, STEM, 3)
        blocks, before = [], STEM
        for times, width, count, stride in STAGES:
            for number in range(count):
                blocks.append(InvertedResidual(before, width, times, stride if number == 0 else 1))
                before = width
        self.blocks = nn.Sequential(*blocks)
        self.last = Convolution(before, LAST)
        self.fc = nn.Linear(LAST, classes)

    def forward(self, x):
        """(B, channels, H, W) → (B, classes)."""
        x = F.relu6(self.stem(x))  # (B, 32, H, W)
        x = self.blocks(x)  # (B, 320, H / 8, W / 8)
        x = F.relu6(self.last(x))  # (B, 1280, H / 8, W / 8)
        return self.fc(x.mean((2, 3)))  # (B, classes)


def prices(rows):
    """Nats a unit: evidence grows with the rows, so on fewer of them a unit has to earn less."""
    return {group: price * (rows / 1_437) ** 0.75 for group, price in PRICES.items()}


def model(train, classes, price=None):
    """The gated model for a training split: ``train.x`` (rows, channels, H, W), ``train.y`` (rows,)."""
    price = prices(len(train.x)) if price is None else price
    return bp.gate(
        MobileNet(train.x.shape[1], classes),
        train.x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(price)),
        likelihood=bp.Categorical(rows=len(train.x)),
        weights=bp.priors.NormalWeights(scale=WEIGHT_SCALE),
        initial_inclusion=INITIAL_INCLUSION,
    )
