"""Weights that are there while both of their units are: what is charged for is what the network reads."""

from itertools import product

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import PriorError
from bayesprune.structure.running import evaluating


class Residual(nn.Module):
    """A stream of three units, and a section beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.down, self.up = nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(2, 3)
        self.out = nn.Linear(3, 2)

    def forward(self, x):
        stream = torch.relu(self.into(x))
        stream = stream + self.up(torch.relu(self.down(stream)))
        return self.out(stream)


class Joined(nn.Module):
    """Two layers whose units one reader has side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.out = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], 1))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)
    )


CASES = [(Residual, (4, 2)), (Joined, (4, 3)), (convolutions, (4, 1, 6, 6))]


def gated(make, shape, **settings):
    torch.manual_seed(0)
    network, x = make(), torch.randn(shape)
    prior = bp.priors.SpikeAndSlab(relevance=True)
    return bp.gate(network, x, prior=prior, likelihood=bp.Categorical(rows=4), layers="none", **settings), x


def masks_of(model, most=64):
    """All masks, or as many drawn ones."""
    sizes = {group.name: group.size for group in model.groups}
    units = sum(sizes.values())
    if 2**units <= most:
        rows = torch.tensor(list(product((0.0, 1.0), repeat=units)))
    else:
        rows = torch.bernoulli(torch.full((most, units), 0.5), generator=torch.Generator().manual_seed(1))
    for row in rows:
        yield dict(zip(sizes, row.split(list(sizes.values())), strict=True))


@pytest.mark.parametrize(("make", "shape"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_what_is_not_charged_for_is_not_read(make, shape):
    model, x = gated(make, shape)
    closed = 0
    for gates in masks_of(model, most=24):
        with evaluating(model.network), torch.no_grad():
            before = model.network(x, gates=gates)
            for name, tensor in model.weight_tensors().items():
                share = model.weight_share(name, gates)
                absent = torch.zeros_like(tensor) if share is None else 1 - share.expand(tensor.shape)
                closed += int(absent.sum())
                kept = tensor.clone()
                tensor.add_(7.0 * absent)
                assert torch.allclose(model.network(x, gates=gates), before, atol=1e-5), (name, gates)
                tensor.copy_(kept)
    assert closed > 0


@pytest.mark.parametrize(("make", "shape"), CASES[:2], ids=lambda case: getattr(case, "__name__", ""))
def test_the_expected_share_is_that_of_all_masks(make, shape):
    model, _ = gated(make, shape)
    generator = torch.Generator().manual_seed(2)
    theta = {group.name: torch.rand(group.size, generator=generator) for group in model.groups}
    mean: dict[str, torch.Tensor] = {}
    units = sum(group.size for group in model.groups)
    for gates in masks_of(model, most=2**units):
        chance = torch.cat([torch.where(gates[n] > 0, theta[n], 1 - theta[n]) for n in theta]).prod()
        for name, tensor in model.weight_tensors().items():
            share = model.weight_share(name, gates)
            if share is not None:
                mean[name] = mean.get(name, torch.zeros(tensor.shape)) + chance * share.expand(tensor.shape)
    assert mean
    for name, expected in mean.items():
        found = model.weight_share(name, theta).expand(expected.shape)
        assert torch.allclose(found, expected, atol=1e-5), name


def test_gates_that_hang_together_are_refused():
    with pytest.raises(PriorError, match="want independent ones"):
        gated(Joined, (4, 3), guide=bp.Autoregressive(lags=(1,)))
