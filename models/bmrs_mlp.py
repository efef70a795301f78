"""A deep, narrow network: six hidden layers of 50 with hyperbolic tangents, and gates on all hidden units.

It is the one of the experiments of Wright, Igel & Selvan, "BMRS: Bayesian Model Reduction for Structured
Pruning" (arXiv 2406.01345), as their public code builds it by default: a layer behind the inputs and five
more. Inputs have no gates there, and none here. Epochs, rows of a step and learning rate are theirs, the
other settings this library's.
"""

from collections import OrderedDict

from torch import nn

import bayesprune as bp

HIDDEN, WIDTH = 6, 50
PRICES = {"fc1": 1000.0, "*": 100.0}  # nats a unit, for 60,000 rows
INITIAL_INCLUSION = 0.9
WEIGHT_SCALE = 0.4  # prior standard deviation of a weight

EPOCHS = {"digits*": 60, "*": 50}
BATCH_SIZE = {"digits*": 32, "*": 64}
RECIPE = bp.Recipe(learning_rate=1e-3, averaging=0.5)


def network(inputs, classes):
    """inputs-50-50-50-50-50-50-classes."""
    layers = OrderedDict(flatten=nn.Flatten())  # (B, inputs)
    for number in range(1, HIDDEN + 1):
        layers[f"fc{number}"] = nn.Linear(inputs if number == 1 else WIDTH, WIDTH)  # (B, 50)
        layers[f"tanh{number}"] = nn.Tanh()
    layers[f"fc{HIDDEN + 1}"] = nn.Linear(WIDTH, classes)  # (B, classes)
    return nn.Sequential(layers)


def prices(rows):
    """Nats a unit: evidence grows with the rows, so on fewer of them a unit has to earn less."""
    return {group: price * (rows / 60_000) ** 0.75 for group, price in PRICES.items()}


def model(train, classes, price=None):
    """The gated model for a training split: ``train.x`` (rows, channels, H, W), ``train.y`` (rows,)."""
    price = prices(len(train.x)) if price is None else price
    return bp.gate(
        network(train.x[0].numel(), classes),
        train.x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(price)),
        likelihood=bp.Categorical(rows=len(train.x)),
        weights=bp.priors.NormalWeights(scale=WEIGHT_SCALE),
        inputs=False,
        initial_inclusion=INITIAL_INCLUSION,
    )
