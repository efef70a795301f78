"""Arguments of distributions given as whole numbers mean what the same numbers mean in floating point."""

import pyro
import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.priors import (
    BernoulliGates,
    Beta,
    Flattening,
    FlatteningDistribution,
    Gates,
    NormalWeights,
    SpikeAndSlab,
    SpikeAndSlabNormal,
)

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


SETTINGS = {
    "Beta": lambda number: {"prior": BernoulliGates(Beta(number(1), number(2)))},
    "Beta of expected units": lambda number: {
        "prior": BernoulliGates(Beta.from_expected_kept(number(2), number(10)))
    },
    "Flattening": lambda number: {"prior": BernoulliGates(Flattening(number(5)))},
    "SpikeAndSlab": lambda number: {"prior": SpikeAndSlab(inclusion=Flattening(number(5)))},
    "NormalWeights": lambda number: {
        "prior": BernoulliGates(Flattening(5.0)), "weights": NormalWeights(scale=number(1))
    },
    "unit_noise": lambda number: {"prior": BernoulliGates(Flattening(5.0)), "unit_noise": number(1)},
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_priors(name):
    """The whole model, as Pyro runs it: every site is drawn."""
    totals = []
    for number in (int, float):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        gated = bp.gate(
            network, torch.ones(2, 3), likelihood=bp.Categorical(rows=6), **SETTINGS[name](number)
        )
        torch.manual_seed(0)
        trace = pyro.poutine.trace(gated.model).get_trace(torch.ones(2, 3), torch.tensor([0, 1]))
        totals.append(trace.log_prob_sum())
    assert torch.isfinite(totals[0]) and totals[0] == totals[1]
