"""ResNet-18: gates on residual streams, inside blocks, and on the whole sections beside shortcuts.

The network of He, Zhang, Ren & Sun (arXiv 1512.03385, table 1) as it is for large photographs, with the
stem that divides height and width by four; for small ones see resnet20_cifar. Each of its four residual
streams is one group of channels, which go together wherever they are added.

Prices and recipe were chosen on a fifth of the digits' training rows, held out; on larger data nothing was
tried.
"""

from torch import nn

import bayesprune as bp

STREAMS = ("conv", "stage2_0_conv2", "stage3_0_conv2", "stage4_0_conv2")  # the channels that blocks add to
PRICES = {**dict.fromkeys(STREAMS, 9.0), "layers": 9.0, "*": 3.0}  # nats a unit, for 1,437 rows
INITIAL_INCLUSION = 0.9
WEIGHT_SCALE = 0.25  # prior standard deviation of a weight
WIDTHS = (64, 128, 256, 512)

EPOCHS = {"digits*": 20, "*": 90}
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


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is a strided 1 × 1 convolution where the image is halved."""

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


class ResNet(nn.Module):
    """A stem, four stages of two blocks, and a linear layer on channel means."""

    def __init__(self, channels, classes):
        super().__init__()
        first, second, third, fourth = WIDTHS
        self.conv = nn.Conv2d(channels, first, 7, 2, 3, bias=False)
        self.norm, self.pool = nn.BatchNorm2d(first), nn.MaxPool2d(3, 2, 1)
        self.stage1 = nn.Sequential(Block(first, first, 1), Block(first, first, 1))
        self.stage2 = nn.Sequential(Block(first, second, 2), Block(second, second, 1))
        self.stage3 = nn.Sequential(Block(second, third, 2), Block(third, third, 1))
        self.stage4 = nn.Sequential(Block(third, fourth, 2), Block(fourth, fourth, 1))
        self.fc = nn.Linear(fourth, classes)

    def forward(self, x):
        """(B, channels, H, W) → (B, classes)."""
        x = self.pool(self.norm(self.conv(x)).relu())  # (B, 64, H / 4, W / 4)
        x = self.stage1(x)
        x = self.stage2(x)  # (B, 128, H / 8, W / 8)
        x = self.stage3(x)  # (B, 256, H / 16, W / 16)
        x = self.stage4(x)  # (B, 512, H / 32, W / 32)
        return self.fc(x.mean((2, 3)))  # (B, classes)


def prices(rows):
    """Nats a unit: evidence grows with the rows, so on fewer of them a unit has to earn less."""
    return {group: price * (rows / 1_437) ** 0.75 for group, price in PRICES.items()}


def model(train, classes, price=None):
    """The gated model for a training split: ``train.x`` (rows, channels, H, W), ``train.y`` (rows,)."""
    price = prices(len(train.x)) if price is None else price
    return bp.gate(
        ResNet(train.x.shape[1], classes),
        train.x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(price)),
        likelihood=bp.Categorical(rows=len(train.x)),
        weights=bp.priors.NormalWeights(scale=WEIGHT_SCALE),
        initial_inclusion=INITIAL_INCLUSION,
    )
