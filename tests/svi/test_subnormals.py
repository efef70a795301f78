"""Numbers that only cost time are zero while a network learns, and nowhere else."""

import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.svi.subnormals import subnormals_as_zero

TINY = 1e-38  # a tenth of it is subnormal in float32


def flushes() -> bool:
    return float(torch.full((), TINY) * 0.1) == 0


@pytest.fixture(autouse=True)
def numbers_as_they_were():
    before = flushes()
    yield
    torch.set_flush_denormal(before)


@pytest.mark.parametrize("already", [False, True])
def test_afterwards_numbers_are_as_before(already):
    torch.set_flush_denormal(already)
    with pytest.raises(KeyError), subnormals_as_zero():
        assert flushes()
        raise KeyError
    assert flushes() == already


def test_a_fit_computes_so_and_leaves_the_process_as_it_was():
    torch.set_flush_denormal(False)
    seen = []
    gated = bp.gate(
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)),
        torch.zeros(1, 3),
        prior=bp.priors.BernoulliGates(bp.priors.Flattening(1.0)),
        likelihood=bp.Categorical(rows=8),
    )
    rows = torch.randn(8, 3), torch.arange(8) % 2
    bp.fit(gated, rows, epochs=1, progress=False, on_epoch=lambda epoch: seen.append(flushes()))
    assert seen == [True]
    assert not flushes()
