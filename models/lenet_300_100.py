"""LeNet-300-100 on 28 × 28 images: gates on all inputs and hidden units under flattening hyper-priors.

Every input pixel, and every unit of both hidden layers, carries a Bernoulli gate. Its inclusion probability
has the hyper-prior of Guenter & Sideris (arXiv 2205.04650), which charges each expected unit a price in nats:
a unit stays exactly when it saves more than its price of the training set's negative log-likelihood.
Prices, noise and recipe were chosen on 5,000 rows held out from MNIST's training rows.
"""

from collections import OrderedDict

from torch import nn

import bayesprune as bp

PRICES = {"input": 36.0, "fc1": 62.0, "fc2": 36.0}  # nats a unit, for 60,000 rows
UNIT_NOISE = {"input": 0.5, "fc1": 0.3}  # standard deviation of the factor on a unit while training
INITIAL_INCLUSION = {"input": 0.9, "*": 0.5}
WEIGHT_SCALE = 0.41  # prior standard deviation of a weight
WIDTHS = (300, 100)

EPOCHS = {"digits*": 100, "*": 80}
BATCH_SIZE = {"digits*": 32, "*": 128}
RECIPE = bp.Recipe(
    estimator="curved",
    gates=bp.GateSteps(learning_rate=0.15, momentum=0.97, clip=0.6, every=8),
    learning_rate=2e-3,
    compact_learning_rate=2e-3,
    warmup=0.0125,
    ramp=0.44,
    decide=0.6,
    averaging=0.5,
)


def network(inputs, classes, widths=WIDTHS):
    """784-300-100-classes with rectifiers."""
    first, second = widths
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),  # (B, 784)
            fc1=nn.Linear(inputs, first),
            relu1=nn.ReLU(),  # (B, 300)
            fc2=nn.Linear(first, second),
            relu2=nn.ReLU(),  # (B, 100)
            fc3=nn.Linear(second, classes),  # (B, classes)
        )
    )


def prices(rows):
    """Nats a unit: evidence grows with the rows, so on fewer of them a unit has to earn less."""
    return {group: price * (rows / 60_000) ** 0.75 for group, price in PRICES.items()}


def model(train, classes, price=None, widths=WIDTHS):
    """The gated model for a training split: ``train.x`` (rows, 1, 28, 28), ``train.y`` (rows,)."""
    price = prices(len(train.x)) if price is None else price
    return bp.gate(
        network(train.x[0].numel(), classes, widths),
        train.x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(price)),
        likelihood=bp.Categorical(rows=len(train.x)),
        weights=bp.priors.NormalWeights(scale=WEIGHT_SCALE),
        initial_inclusion=INITIAL_INCLUSION,
        unit_noise=UNIT_NOISE,
    )
