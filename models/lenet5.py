"""LeNet-5-Caffe (20-50-800-500) on 28 × 28 images: gates on filters, flattened features and hidden units.

Each group has its own price, because its units cost differently: a filter of the first layer moves 94,400
multiply-accumulates a row, a flattened feature 500. Prices, noise and recipe were chosen on 5,000 rows held
out from MNIST's training rows. The hyper-prior is that of Guenter & Sideris (arXiv 2205.04650).
"""

from collections import OrderedDict

from torch import nn

import bayesprune as bp

PRICES = {"conv1": 1000.0, "conv2": 380.0, "flatten": 5.3, "fc1": 18.5}  # nats a unit, for 60,000 rows
INITIAL_INCLUSION = {"conv*": 0.9, "*": 0.5}
UNIT_NOISE = {"flatten": 0.35}  # standard deviation of the factor on a feature while training
WEIGHT_SCALE = 0.25  # prior standard deviation of a weight

EPOCHS = {"digits*": 100, "*": 40}
BATCH_SIZE = {"digits*": 32, "*": 128}
RECIPE = bp.Recipe(
    estimator="curved",
    learning_rate=3e-3,
    compact_learning_rate=8e-3,
    compact_floor=0.5,
    warmup=0.015,
    ramp=0.285,
    decide=0.39,
    averaging=0.5,
)


def network(classes):
    """Two convolutions with pooling, then two linear layers, as in Caffe's MNIST example, with rectifiers."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 20, 5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),  # (B, 20, 12, 12)
            conv2=nn.Conv2d(20, 50, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),  # (B, 50, 4, 4)
            flatten=nn.Flatten(),  # (B, 800)
            fc1=nn.Linear(800, 500),
            relu3=nn.ReLU(),  # (B, 500)
            fc2=nn.Linear(500, classes),  # (B, classes)
        )
    )


def prices(rows):
    """Nats a unit: evidence grows with the rows, so on fewer of them a unit has to earn less."""
    return {group: price * (rows / 60_000) ** 0.75 for group, price in PRICES.items()}


def model(train, classes, price=None):
    """The gated model for a training split: ``train.x`` (rows, 1, 28, 28), ``train.y`` (rows,)."""
    price = prices(len(train.x)) if price is None else price
    return bp.gate(
        network(classes),
        train.x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(price)),
        likelihood=bp.Categorical(rows=len(train.x)),
        weights=bp.priors.NormalWeights(scale=WEIGHT_SCALE),
        initial_inclusion=INITIAL_INCLUSION,
        unit_noise=UNIT_NOISE,
    )
