"""A small network, model, rows and fit to be called wrongly with."""

import functools

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import bayesprune as bp

ROWS = 24
generator = torch.Generator().manual_seed(0)
X = torch.randn(ROWS, 4, generator=generator)
Y = (X[:, 0] > 0).long()


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


class Residual(nn.Module):
    """A network that is a graph, not a row of layers."""

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


NAN, BAD = X.clone(), Y.clone()
NAN[20, 1] = torch.nan
BAD[20] = 9


class Of(nn.Module):
    """A network that does something with a small one."""

    def __init__(self, what):
        super().__init__()
        self.net, self.what = net(), what

    def forward(self, x):
        return self.what(self.net, x)


class Two(nn.Module):
    """A network of two inputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x, z):
        return self.b((self.a(x) + self.a(z)).relu())


class Stream(IterableDataset):
    """Rows without a number."""

    def __iter__(self):
        return iter(list(zip(X, Y, strict=True)))


class Dicts(Dataset):
    """Rows as dicts."""

    def __len__(self):
        return ROWS

    def __getitem__(self, row):
        return {"x": X[row], "y": Y[row]}


def normed():
    """A network that normalises by the batch."""
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
