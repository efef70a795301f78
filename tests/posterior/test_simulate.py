"""Ranks are uniform where the guide is the exact posterior, and are not where it is too sure."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import bayesprune as bp
from bayesprune.errors import SettingsError
from bayesprune.posterior import simulate_ranks
from bayesprune.svi.estimators import all_configurations

UNITS, ROWS, KEEP = 4, 12, 0.4


def regression():
    """Known weights; only the gates are unknown, so that 16 masks are the whole posterior."""
    x = torch.randn(ROWS, UNITS, generator=torch.Generator().manual_seed(0))
    likelihood = bp.Gaussian(rows=ROWS, scale=2.0, learn_scale=False)
    prior = bp.priors.BernoulliGates(bp.priors.Fixed(KEEP))
    network = nn.Sequential(nn.Linear(UNITS, 1, bias=False))
    nn.init.ones_(network[0].weight)
    weights = bp.priors.NormalWeights(1e-6, posterior="normal", initial_scale=1e-6)
    return bp.gate(network, x[:1], prior=prior, likelihood=likelihood, weights=weights), x


def known_weights(gated):
    """The model with its weights held at one, so that the posterior of the gates is exact."""

    class Known(type(gated)):
        def model(self, x, y=None):
            data = {f"weight/{n}": torch.ones_like(w) for n, w in self.weight_tensors().items()}
            return pyro.condition(lambda x, y=None: super(Known, self).model(x, y), data=data)(x, y)

    gated.__class__ = Known
    return gated


def exact(temperature):
    """Draws a mask from the enumerated posterior, raised to a power; 1 is right, more is too sure."""

    def infer(gated, rows):
        x, y = rows
        masks = all_configurations(UNITS)
        nll = (y.reshape(1, ROWS) - masks @ x.T).square().sum(-1) / (2 * 2.0**2)
        log_prior = (masks * torch.tensor(KEEP / (1 - KEEP)).log()).sum(-1)
        probs = torch.softmax(temperature * (log_prior - nll), 0)

        def guide(x, y=None):
            mask = masks[pyro.sample("mask", dist.Categorical(probs), infer={"is_auxiliary": True})]
            pyro.sample("gate/input", dist.Delta(mask).to_event(1))

        return guide

    return infer


def only_gates(sites):
    return {"kept": float(sites["gate/input"].sum()), "first": float(sites["gate/input"][0])}


@pytest.mark.nightly
def test_ranks_of_the_exact_posterior_are_uniform_and_of_a_sharpened_one_are_not():
    """False-alarm rate 2e-3 (two statistics at 1e-3); for the sharpened one an alarm must sound."""
    gated, x = regression()
    gated = known_weights(gated)
    right = simulate_ranks(gated, x, exact(1.0), only_gates, simulations=200, draws=49, progress=False)
    assert min(right.uniformity().values()) > 1e-3, str(right)
    sharp = simulate_ranks(gated, x, exact(8.0), only_gates, simulations=200, draws=49, progress=False)
    assert sharp.uniformity()["kept"] < 1e-3, str(sharp)
    assert sharp.outermost()["kept"] > right.outermost()["kept"]
    assert "too narrow" in str(sharp)


def test_default_statistics_are_kept_counts_and_single_hyper_sites():
    gated, x = regression()
    gated = gated.with_prior(bp.priors.BernoulliGates(bp.priors.Beta(1.0, 1.0)))
    ranks = simulate_ranks(gated, x, lambda model, rows: model.guide, simulations=50, draws=9, progress=False)
    assert "kept/input" in ranks.ranks and len(ranks.ranks) == 2, list(ranks.ranks)
    assert all(((r >= 0) & (r <= 9)).all() and len(r) == 50 for r in ranks.ranks.values())
    again = simulate_ranks(gated, x, lambda model, rows: model.guide, simulations=50, draws=9, progress=False)
    assert all((again.ranks[name] == r).all() for name, r in ranks.ranks.items())


def test_bad_input_is_said_all_at_once():
    gated, x = regression()
    with pytest.raises(SettingsError) as caught:
        simulate_ranks(gated, x[:5], lambda model, rows: model.guide, simulations=10, draws=3)
    for part in ("simulations=10", "draws=3", "5 rows", "rows=5"):
        assert part in str(caught.value)
