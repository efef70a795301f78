"""LeNet-5-Caffe (20-50-800-500) on 28 × 28 images: gates on filters, flattened features and hidden units.

Each group has its own price, because its units cost differently: a filter of the first layer moves 94,400
multiply-accumulates a row, a flattened feature 500. The hyper-prior is that of Guenter & Sideris (arXiv
2205.04650).
"""

from collections import OrderedDict

from torch import nn

import bayesprune as bp

PRICES = {"conv1": 250.0, "conv2": 110.0, "flatten": 14.0, "fc1": 30.0}  # nats a unit
INITIAL_INCLUSION = 0.9
WEIGHT_SCALE = 0.5  # prior standard deviation of a weight

EPOCHS = 25
BATCH_SIZE = 128
RECIPE = bp.Recipe(estimator="second_order")


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


def model(train, classes, price=None):
    """The gated model for a training split: ``train.x`` (rows, 1, 28, 28), ``train.y`` (rows,)."""
    return bp.gate(
        network(classes),
        train.x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(PRICES if price is None else price)),
        likelihood=bp.Categorical(rows=len(train.x)),
        weights=bp.priors.NormalWeights(scale=WEIGHT_SCALE),
        initial_inclusion=INITIAL_INCLUSION,
    )
