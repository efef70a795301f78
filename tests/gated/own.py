"""A small network to put users' priors on: two groups, 'input' of six gates and '0' of four."""

import torch
from torch import nn

import bayesprune as bp

SIGMAS = 4.42


def gate(prior, inputs=6, hidden=4, rows=64, **settings):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(inputs, hidden), nn.Softplus(), nn.Linear(hidden, 2))
    settings = {"likelihood": bp.Categorical(rows=rows), **settings}
    return bp.gate(network, torch.zeros(1, inputs), prior=prior, **settings)


def rows_of(gated, rows=7):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(rows, gated.groups[0].size, generator=generator)
    return x, (x[:, 0] > 0).long()
