"""LeNet-5 for images of about 32 × 32: 6C-16C-120C-84C for C channels, gates on filters and hidden units.

It is the one of the experiments of Wright, Igel & Selvan, "BMRS: Bayesian Model Reduction for Structured
Pruning" (arXiv 2406.01345), as their public code builds it: rectifiers, maximum pooling, widths that grow
with the channels. Flattened features have no gates of their own there, and none here. Epochs, rows of a step
and learning rate are theirs, the other settings this library's.
"""

from collections import OrderedDict

from torch import nn

import bayesprune as bp

PRICES = {"conv1": 400.0, "conv2": 200.0, "fc1": 40.0, "fc2": 20.0}  # nats a unit, for 60,000 rows
INITIAL_INCLUSION = 0.9
WEIGHT_SCALE = 0.25  # prior standard deviation of a weight

EPOCHS = {"digits*": 60, "*": 50}
BATCH_SIZE = {"digits*": 32, "*": 64}
RECIPE = bp.Recipe(learning_rate=1e-3, averaging=0.5)


def network(channels, side, classes):
    """Two convolutions with pooling, then three linear layers."""
    c, left = channels, ((side - 4) // 2 - 4) // 2  # of 32 pixels a side, 5 are left
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(c, 6 * c, 5),  # (B, 6C, 28, 28) of 32 × 32
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),  # (B, 6C, 14, 14)
            conv2=nn.Conv2d(6 * c, 16 * c, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),  # (B, 16C, 5, 5)
            flatten=nn.Flatten(),  # (B, 400C)
            fc1=nn.Linear(16 * c * left**2, 120 * c),
            relu3=nn.ReLU(),  # (B, 120C)
            fc2=nn.Linear(120 * c, 84 * c),
            relu4=nn.ReLU(),  # (B, 84C)
            fc3=nn.Linear(84 * c, classes),  # (B, classes)
        )
    )


def prices(rows):
    """Nats a unit: evidence grows with the rows, so on fewer of them a unit has to earn less."""
    return {group: price * (rows / 60_000) ** 0.75 for group, price in PRICES.items()}


def model(train, classes, price=None):
    """The gated model for a training split: ``train.x`` (rows, channels, H, H), ``train.y`` (rows,)."""
    price = prices(len(train.x)) if price is None else price
    return bp.gate(
        network(train.x.shape[1], train.x.shape[2], classes),
        train.x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(price)),
        likelihood=bp.Categorical(rows=len(train.x)),
        weights=bp.priors.NormalWeights(scale=WEIGHT_SCALE),
        inputs=False,
        initial_inclusion=INITIAL_INCLUSION,
    )
