"""Fits of a small network that a second is enough for."""

import warnings

import torch
from torch import nn

import bayesprune as bp
from bayesprune import priors
from bayesprune.errors import (
    EmptyGroupWarning,
)

ROWS, EPOCHS = 96, 6


FAST = dict(
    gates=bp.GateSteps(learning_rate=0.5, momentum=0.5, clip=1.0, every=1),
    shrink=bp.Shrink(every=3),
    learning_rate=1e-2,
    compact_learning_rate=1e-2,
    warmup=0.05,
    ramp=0.2,
    decide=0.6,
)


def data(rows=ROWS):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 1, 6, 6, generator=generator)
    return x, (x[:, 0, 1:3, 1:3].mean((1, 2)) > 0).long()


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2),
    )  # fmt: skip


def gated_for(price=2.0, rows=ROWS, net=None, **settings):
    prior = priors.BernoulliGates(priors.Flattening(price))
    example = torch.zeros(1, 1, 6, 6)
    return bp.gate(net or network(), example, prior=prior, likelihood=bp.Categorical(rows=rows), **settings)


def fit(gated=None, train=None, recipe=None, **settings):
    settings = {"epochs": EPOCHS, "batch_size": 16, "progress": False, **settings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)
        return bp.fit(gated or gated_for(), train or data(), recipe=recipe or bp.Recipe(**FAST), **settings)


def same(a, b):
    assert a.gated.state_dict().keys() == b.gated.state_dict().keys()
    for key, value in a.gated.state_dict().items():
        assert torch.equal(value, b.gated.state_dict()[key]), key
    assert len(a.history) == len(b.history)
    for one, other in zip(a.history, b.history, strict=True):
        assert torch.equal(one.inclusion, other.inclusion)
        for name in (
            "epoch",
            "elbo",
            "nll",
            "prior_weight",
            "kept",
            "parameters_percent",
            "macs_percent",
            "undecided",
        ):
            assert getattr(one, name) == getattr(other, name), name
