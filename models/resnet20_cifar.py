"""ResNet-20 for images of about 32 × 32: gates on residual streams, inside blocks, and on whole sections.

The network of He, Zhang, Ren & Sun (arXiv 1512.03385, section 4.2), with projection shortcuts (their option
B): where a stage begins, a strided 1 × 1 convolution makes the shortcut, so that the three streams of 16, 32
and 64 channels are pruned independently of one another. Channels that are added to each other are one unit,
and go together; the two convolutions beside a shortcut are a section, which may go as a whole.

Prices and recipe were chosen on a fifth of the digits' training rows, held out; on CIFAR nothing was tried.
"""

from torch import nn

import bayesprune as bp

STREAMS = ("conv", "stage2_0_conv2", "stage3_0_conv2")  # the groups of channels that blocks add to
PRICES = {**dict.fromkeys(STREAMS, 30.0), "layers": 30.0, "*": 10.0}  # nats a unit, for 1,437 rows
INITIAL_INCLUSION = 0.9
WEIGHT_SCALE = 0.25  # prior standard deviation of a weight
BLOCKS, WIDTHS = 3, (16, 32, 64)

EPOCHS = {"digits*": 20, "*": 160}
BATCH_SIZE = {"digits*": 32, "*": 128}
RECIPE = bp.Recipe(
    gates=bp.GateSteps(learning_rate=0.1, momentum=0.95, clip=0.5, every=1),
    learning_rate=3e-3,
    compact_learning_rate=3e-3,
    shrink=bp.Shrink(every=20),
    warmup=0.05,
    ramp=0.25,
    decide=0.6,
)


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Identity()
        if stride > 1:
            projection = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(width))

    def forward(self, x):
        """(B, channels, H, W) → (B, width, H / stride, W / stride)."""
        y = self.norm1(self.conv1(x)).relu()  # (B, width, H / stride, W / stride)
        y = self.norm2(self.conv2(y))
        return (y + self.shortcut(x)).relu()


def stage(channels, width, blocks):
    """Blocks of one width; the first one halves the image where it widens it."""
    first = Block(channels, width, stride=1 if channels == width else 2)
    return nn.Sequential(first, *(Block(width, width, stride=1) for _ in range(blocks - 1)))


class ResNet(nn.Module):
    """A convolution, three stages of blocks, and a linear layer on channel means."""

    def __init__(self, channels, classes, blocks=BLOCKS, widths=WIDTHS):
        super().__init__()
        first, second, third = widths
        self.conv = nn.Conv2d(channels, first, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(first)
        self.stage1 = stage(first, first, blocks)
        self.stage2 = stage(first, second, blocks)
        self.stage3 = stage(second, third, blocks)
        self.fc = nn.Linear(third, classes)

    def forward(self, x):
        """(B, channels, H, W) → (B, classes)."""
        x = self.norm(self.conv(x)).relu()  # (B, 16, H, W)
        x = self.stage1(x)
        x = self.stage2(x)  # (B, 32, H / 2, W / 2)
        x = self.stage3(x)  # (B, 64, H / 4, W / 4)
        return self.fc(x.mean((2, 3)))  # (B, classes)


def prices(rows):
    """Nats a unit: evidence grows with the rows, so on fewer of them a unit has to earn less."""
    return {group: price * (rows / 1_437) ** 0.75 for group, price in PRICES.items()}


def model(train, classes, price=None, layers="sections"):
    """The gated model for a training split: ``train.x`` (rows, channels, H, W), ``train.y`` (rows,)."""
    price = prices(len(train.x)) if price is None else price
    if layers == "none" and isinstance(price, dict):
        price = {group: nats for group, nats in price.items() if group != "layers"}
    return bp.gate(
        ResNet(train.x.shape[1], classes),
        train.x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(price)),
        likelihood=bp.Categorical(rows=len(train.x)),
        weights=bp.priors.NormalWeights(scale=WEIGHT_SCALE),
        layers=layers,
        initial_inclusion=INITIAL_INCLUSION,
    )
