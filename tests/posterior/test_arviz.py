"""Draws of the posterior in ArviZ's form."""

import arviz
import numpy
import pytest
import torch
from scipy import stats
from torch import nn

import bayesprune as bp
from bayesprune.posterior import to_arviz
from bayesprune.posterior.arviz import unwrap

FALSE_ALARM = 1e-6  # of each randomised test


def gated_for(prior, **settings):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 3))
    likelihood = bp.Categorical(rows=100)
    return bp.gate(network, torch.zeros(1, 1), prior=prior, likelihood=likelihood, **settings)


def test_gates_are_drawn_with_their_inclusion_probability():
    gated = gated_for(
        bp.priors.BernoulliGates(bp.priors.Beta(1.0, 3.0)), initial_inclusion=0.7, unit_noise=0.2
    )
    gated.remove_(torch.arange(8) == 3)
    draws, state = 4000, torch.get_rng_state()
    posterior = unwrap(to_arviz(gated, draws=draws))["posterior"]
    assert torch.equal(torch.get_rng_state(), state) and gated.training
    assert set(posterior.data_vars) == {"gate/0", "rate/0"}  # noise is none, and points have no posterior
    gates = posterior["gate/0"]
    assert gates.dims == ("chain", "draw", "0_unit") and gates.shape == (1, draws, 8)
    kept = gates.values[0].sum(0)
    assert kept[3] == 0
    low, high = stats.binom.interval(1 - FALSE_ALARM / 7, draws, 0.7)
    assert all(low <= count <= high for unit, count in enumerate(kept) if unit != 3)
    assert ((posterior["rate/0"] > 0) & (posterior["rate/0"] < 1)).all()


def test_weights_with_a_posterior_keep_their_shape():
    posterior = unwrap(to_arviz(gated_for(bp.priors.SpikeAndSlab(0.5)), draws=20))["posterior"]
    assert posterior["weight/0.weight"].shape == (1, 20, 8, 1)
    assert posterior["weight/2.bias"].shape == (1, 20, 3)


def test_draws_follow_the_seed_and_arviz_summarises_them():
    gated = gated_for(bp.priors.BernoulliGates(bp.priors.Flattening(3.0)))
    one, same, other = (to_arviz(gated, draws=50, seed=seed) for seed in (1, 1, 2))
    first, second, third = (unwrap(draws)["posterior"]["gate/0"] for draws in (one, same, other))
    assert numpy.array_equal(first, second) and not numpy.array_equal(first, third)
    (name,) = {"gate/0", "gate:0"} & set(one.posterior.data_vars)  # a tree's has a colon
    summary = arviz.summary(one, var_names=[name], kind="stats", round_to="none")
    assert len(summary) == 8
    assert summary["mean"].mean() == pytest.approx(float(first.mean()), abs=1e-3)
