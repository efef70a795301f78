"""Arguments of distributions given as whole numbers mean what the same numbers mean in floating point."""

import pytest
import torch

from bayesprune.priors import FlatteningDistribution, Gates, SpikeAndSlabNormal

PROBS, LOGITS, HALF = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]), torch.tensor(0.5)


@pytest.mark.parametrize("cast", [torch.long, torch.int32, torch.uint8, torch.float32])
def test_flattening(cast):
    whole, real = (
        FlatteningDistribution(torch.tensor(3, dtype=cast)),
        FlatteningDistribution(torch.tensor(3.0)),
    )
    assert whole.mean == real.mean and whole.mean.item() == pytest.approx(0.2809, abs=1e-4)
    assert whole.log_prob(HALF) == real.log_prob(HALF)
    assert whole.log_prob(HALF).item() == pytest.approx(-0.5051, abs=1e-4)
    assert whole.cdf(HALF) == real.cdf(HALF) and whole.icdf(HALF) == real.icdf(HALF)
    edge = torch.tensor(1, dtype=cast)
    assert whole.log_prob(edge) == real.log_prob(edge.float()) and whole.cdf(edge) == 1


@pytest.mark.parametrize("cast", [torch.long, torch.bool, torch.float32])
def test_gates(cast):
    value = torch.tensor([0, 1, 1], dtype=cast)
    assert Gates(probs=PROBS.to(cast)).log_prob(value.float()) == 0
    logits = LOGITS.clamp(0, 1).to(cast)
    real = Gates(logits=logits.float())
    assert Gates(logits=logits).log_prob(value.float()) == real.log_prob(value.float())
    assert torch.equal(Gates(logits=logits).mean, real.mean)
    assert Gates(probs=PROBS.to(cast)).sample().is_floating_point()


def test_spike_and_slab():
    loc, there = torch.tensor([0, 1]), torch.tensor([0.3, 1.2])
    whole, real = (SpikeAndSlabNormal(0.25, each, 1.7) for each in (loc, loc.float()))
    assert whole.log_prob(there) == real.log_prob(there)
    assert torch.equal(whole.mean, real.mean) and torch.equal(whole.variance, real.variance)
