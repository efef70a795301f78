"""Regression with a two-layer network: unknown noise, a Beta prior on the share of inputs that matter.

Brings its own data: y = sin(3 x₁) + x₂² + noise, with ten inputs of which eight say nothing. A good posterior
keeps inputs 0 and 1, fewer than half of the hidden units, and finds the noise's standard deviation of 0.1.
"""

import torch
from torch import nn

import bayesprune as bp

ROWS, INPUTS, NOISE = 2_000, 10, 0.1
HIDDEN = 50
EXPECTED_INPUTS = 2  # the Beta prior's mean
HIDDEN_PRICE = 200.0  # nats a unit

EPOCHS = 200
BATCH_SIZE = 100
RECIPE = bp.Recipe(
    gates=bp.GateSteps(),  # the pace that this was tuned at, whatever the number of steps
    learning_rate=1e-2,
    compact_learning_rate=1e-2,
    warmup=0.15,
    decide=0.5,
)


def data():
    """Two thousand rows to learn from, a thousand to test on; seeded."""
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(ROWS + 1_000, INPUTS, generator=generator) - 1  # (rows, 10)
    noise = NOISE * torch.randn(len(x), generator=generator)
    y = torch.sin(3 * x[:, 0]) + x[:, 1] ** 2 + noise  # (rows,)
    return bp.data.Dataset(
        name="sin_square",
        train=bp.data.Split(x[:ROWS], y[:ROWS]),
        test=bp.data.Split(x[ROWS:], y[ROWS:]),
        classes=1,
    )


def network(inputs):
    """inputs-50-1 with a tanh layer."""
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))  # (B, 1)


def model(train, classes, price=None):
    """Gates on inputs and hidden units; ``price`` in nats is that of a hidden unit."""
    hyper = {
        "input": bp.priors.BernoulliGates(bp.priors.Beta.from_expected_kept(EXPECTED_INPUTS)),
        "*": bp.priors.BernoulliGates(bp.priors.Flattening(HIDDEN_PRICE if price is None else price)),
    }
    return bp.gate(
        network(train.x.shape[1]),
        train.x[:1],
        prior=bp.priors.PerGroup(hyper),
        likelihood=bp.Gaussian(rows=len(train.x), scale=0.5),
        weights=bp.priors.NormalWeights(scale=1.0),
    )
