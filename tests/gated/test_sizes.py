"""Rows of another size than the example's: computed right where sizes are free, refused by name elsewhere."""

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import DataError

PRIOR = bp.priors.BernoulliGates(bp.priors.Flattening(4.0))


def pooled():
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    )  # fmt: skip


def gated_on(network, x):
    return bp.gate(network, x, prior=PRIOR, likelihood=bp.Categorical(rows=5))


def test_images_of_any_size_for_convolutions_and_a_global_pooling():
    torch.manual_seed(0)
    network = pooled().double()
    gated = gated_on(network, torch.randn(2, 2, 6, 6, dtype=torch.double))
    assert gated.form.inputs.shape == (2, None, None)
    larger = torch.randn(5, 2, 11, 8, dtype=torch.double)
    for training in (False, True):
        expected = network.train(training)(larger)
        torch.testing.assert_close(gated.network.train(training)(larger), expected, rtol=0, atol=1e-10)
    dead = torch.zeros_like(gated.alive)
    dead[[1, 4, 9]] = True
    open_units = gated.by_group(gated.alive & ~dead)
    masked = gated.network.eval()(larger, {name: z.double() for name, z in open_units.items()})
    gated.remove_(dead)
    for left in (gated.network.eval(), gated.network.plain().eval()):
        torch.testing.assert_close(left(larger), masked, rtol=0, atol=1e-10)
    result = bp.fit(gated, (larger, torch.arange(5) % 3), epochs=1, batch_size=5, seed=0, progress=False)
    assert bp.prune(result)(larger).shape == (5, 3)


@pytest.mark.parametrize(
    "network, example",
    [
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(64, 3)), torch.zeros(2, 2, 6, 6)),
        (nn.Sequential(nn.Flatten(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)), torch.zeros(2, 2, 2, 2)),
    ],
)
def test_a_size_that_a_linear_layer_reads_is_fixed(network, example):
    gated = gated_on(network, example)
    assert gated.form.inputs.shape == tuple(example.shape[1:])
    x = torch.zeros(5, 2, 7, 7)
    with pytest.raises(DataError, match=r"a row has shape \(2, 7, 7\)"):
        bp.fit(gated, (x, torch.arange(5) % 3), epochs=1, progress=False)
