"""A small network, model, rows and fit to be called wrongly with."""

import functools

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bayesprune as bp

ROWS = 24
generator = torch.Generator().manual_seed(0)
X = torch.randn(ROWS, 4, generator=generator)
Y = (X[:, 0] > 0).long()


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


class Residual(nn.Module):
    """A network that is a graph, not a chain."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        h = self.a(x).relu()
        return self.c(h + self.b(h).relu())


def prior():
    return bp.priors.BernoulliGates(bp.priors.Flattening(price=1.0))


def gate(network=None, example=X, **settings):
    settings = {"prior": prior(), "likelihood": bp.Categorical(rows=ROWS), **settings}
    return bp.gate(network if network is not None else net(), example, **settings)


def fit(gated=None, train=(X, Y), **settings):
    settings = {"epochs": 1, "batch_size": 8, "progress": False, **settings}
    return bp.fit(gated if gated is not None else gate(), train, **settings)


def loader(*tensors, **settings):
    return DataLoader(TensorDataset(*tensors), **{"batch_size": 8, **settings})


@functools.cache
def fitted():
    """A fit that tests only look at."""
    return fit()


@functools.cache
def pruned():
    """Its network."""
    return bp.prune(fitted())
