"""VGG-16 with batch normalisation for images of about 32 × 32: gates on the filters of all convolutions.

The convolutions of Simonyan & Zisserman (arXiv 1409.1556, configuration D) and one linear layer behind them,
the form in which CIFAR is usually learnt. Pooling halves the image after each of the five stages, as long as
there are two pixels to halve.

Prices and recipe were chosen on a fifth of the digits' training rows, held out; on larger data nothing was
tried.
"""

from collections import OrderedDict

from torch import nn

import bayesprune as bp
from bayesprune.errors import DataError

PRICES = {"conv*": 0.8, "*": 0.1}  # nats a unit, for 1,437 rows
INITIAL_INCLUSION = 0.9
WEIGHT_SCALE = 0.25  # prior standard deviation of a weight
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

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


def network(channels, height, width, classes):
    """Convolutions of 3 × 3, each normalised and rectified; pooling; a linear layer on what is left."""
    layers, before = OrderedDict(), channels
    for stage, filters in enumerate(STAGES, start=1):
        for number, after in enumerate(filters, start=1):
            name = f"{stage}_{number}"
            layers[f"conv{name}"] = nn.Conv2d(before, after, 3, padding=1, bias=False)
            layers[f"norm{name}"] = nn.BatchNorm2d(after)
            layers[f"relu{name}"] = nn.ReLU()  # (B, after, height, width)
            before = after
        if min(height, width) > 1:
            layers[f"pool{stage}"] = nn.MaxPool2d(2)
            height, width = height // 2, width // 2
    layers["flatten"] = nn.Flatten()  # (B, 512 · height · width)
    layers["fc"] = nn.Linear(before * height * width, classes)  # (B, classes)
    return nn.Sequential(layers)


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
        network(*train.x.shape[1:], classes),
        train.x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(price)),
        likelihood=bp.Categorical(rows=len(train.x)),
        weights=bp.priors.NormalWeights(scale=WEIGHT_SCALE),
        initial_inclusion=INITIAL_INCLUSION,
    )
