"""A committee machine that learns from a smaller one, with a gate on every hidden unit.

Brings its own data: a teacher of three erf units on thirty Gaussian inputs, and noise of 0.3. The student has
twelve units, so that each of the teacher's could be there four times over. The best posterior keeps three,
one for each of the teacher's, and finds the noise's standard deviation. Seeds 0, 1 and 2 keep three, four and
six: once copies have shared a unit of the teacher's, losing one of them costs more than its price, which is
what `bayesprune.theory` finds for nodes that are pruned without re-weighting.
"""

import math

import numpy as np
import torch
from torch import nn

import bayesprune as bp
from bayesprune import theory

ROWS, INPUTS, NOISE = 2_000, 30, 0.3
TEACHER_UNITS, TEACHER_READOUT = 3, 2.0
HIDDEN = 12
PRICE = 1_000.0  # nats a unit

EPOCHS = 150
BATCH_SIZE = 50
RECIPE = bp.Recipe(
    gates=bp.GateSteps(),  # the pace that this was tuned at, whatever the number of steps
    learning_rate=1e-2,
    compact_learning_rate=1e-2,
    warmup=0.15,
    decide=0.5,
)


class Erf(nn.Module):
    """g(λ) = erf(λ / √2), with the fields' λ = w · x / √d."""

    def forward(self, x):
        """(B, units) → (B, units)."""
        return torch.erf(x / math.sqrt(2 * INPUTS))


def teacher():
    """The committee that gives the answers; seeded."""
    return theory.draw_committee(TEACHER_UNITS, INPUTS, np.random.default_rng(0), TEACHER_READOUT)


def data():
    """Two thousand rows to learn from, a thousand to test on; seeded."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((ROWS + 1_000, INPUTS))  # (rows, 30)
    y = teacher()(x) + NOISE * rng.standard_normal(len(x))  # (rows,)
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
    return bp.data.Dataset(
        name="teacher",
        train=bp.data.Split(x[:ROWS], y[:ROWS]),
        test=bp.data.Split(x[ROWS:], y[ROWS:]),
        classes=1,
    )


def network():
    """30-12-1 without biases, weights of order 1 as the theory has them."""
    student = nn.Sequential(nn.Linear(INPUTS, HIDDEN, bias=False), Erf(), nn.Linear(HIDDEN, 1, bias=False))
    nn.init.normal_(student[0].weight)
    return student  # (B, 30) → (B, 1)


def model(train, classes, price=None):
    """Gates on hidden units; ``price`` is nats a unit."""
    return bp.gate(
        network(),
        train.x[:1],
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(PRICE if price is None else price)),
        likelihood=bp.Gaussian(rows=len(train.x), scale=0.5),
        weights=bp.priors.NormalWeights(scale=3.0),
    )
