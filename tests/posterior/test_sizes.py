"""Distributions of sizes, against enumeration of all masks."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import bayesprune as bp
from bayesprune.errors import PosteriorError
from bayesprune.posterior.sizes import poisson_binomial

PRIOR = bp.priors.BernoulliGates(bp.priors.Fixed(0.5))


def gated(network, log_odds):
    model = bp.gate(network, torch.zeros(1, 4), prior=PRIOR, likelihood=bp.Categorical(rows=10))
    model.log_odds.data.copy_(torch.tensor(log_odds))
    return model


def enumerated(probs, cost):
    """Value → probability of a cost of a mask, over all masks."""
    law = {}
    for mask in itertools.product((0, 1), repeat=len(probs)):
        share = np.prod([p if z else 1 - p for p, z in zip(probs, mask, strict=True)])
        law[cost(mask)] = law.get(cost(mask), 0.0) + share
    return {value: law[value] for value in sorted(law)}


def same(law, right, tolerance=1e-7):
    found = dict(zip(law.values.tolist(), law.probs.tolist(), strict=True))
    assert all(abs(found.get(value, 0.0) - share) < tolerance for value, share in right.items())
    assert sum(found.values()) == pytest.approx(1)


def test_equal_events_are_binomial():
    np.testing.assert_allclose(
        poisson_binomial(np.full(30, 0.3)), stats.binom(30, 0.3).pmf(range(31)), atol=1e-15
    )


def test_costs_that_are_linear_are_exact():
    """Four inputs of a 4-3 layer: a unit is three weights."""
    log_odds = [0.5, -1.0, 2.0, 40.0]
    probs = torch.sigmoid(torch.tensor(log_odds)).double().tolist()
    sizes = bp.Posterior.of(gated(nn.Sequential(nn.Linear(4, 3)), log_odds)).sizes()
    assert sizes.parameters.exact and sizes.macs.exact
    same(sizes.kept["input"], enumerated(probs, sum))
    same(sizes.units, enumerated(probs, sum))
    same(sizes.macs, enumerated(probs, lambda z: 3 * sum(z)))
    same(sizes.parameters, enumerated(probs, lambda z: 3 * sum(z) + 3))
    right = enumerated(probs, lambda z: 3 * sum(z))
    mean = sum(value * share for value, share in right.items())
    assert sizes.macs.mean == pytest.approx(mean)
    variance = sum((value - mean) ** 2 * share for value, share in right.items())
    assert sizes.macs.sd == pytest.approx(variance**0.5)
    assert sizes.macs.at_most(6) == pytest.approx(sum(s for v, s in right.items() if v <= 6))


def test_units_of_several_layers_are_drawn_and_their_numbers_exact():
    """4-3-2: MACs are 3-fold products. 10,000 draws, each share within 5 standard deviations (< 0.025)."""
    log_odds = [0.5, -1.0, 2.0, 0.0, 1.0, -0.5, 0.3]
    probs = torch.sigmoid(torch.tensor(log_odds)).double().tolist()
    sizes = bp.Posterior.of(
        gated(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), log_odds)
    ).sizes()
    assert not sizes.macs.exact and sizes.units.exact
    macs = lambda z: sum(z[:4]) * sum(z[4:]) + 2 * sum(z[4:])  # noqa: E731
    same(sizes.macs, enumerated(probs, macs), tolerance=0.025)
    same(sizes.parameters, enumerated(probs, lambda z: macs(z) + sum(z[4:]) + 2), tolerance=0.025)
    same(sizes.kept["0"], enumerated(probs[4:], sum))
    same(sizes.units, enumerated(probs, sum))
    decided = [40.0, 40.0, 2.0, 0.0, 40.0, 40.0, 40.0]  # in one layer alone: linear again
    one = bp.Posterior.of(gated(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), decided)).sizes()
    assert one.macs.exact and one.parameters.exact
    same(one.macs, enumerated(torch.sigmoid(torch.tensor(decided)).double().tolist(), macs))


def test_fits_count_equally_and_intervals_hold_what_they_say():
    network = nn.Sequential(nn.Linear(4, 3))
    all_open, all_shut = gated(network, [40.0] * 4), gated(network, [40.0, -40.0, -40.0, -40.0])
    sizes = bp.Posterior.of([all_open, all_shut]).sizes()
    same(sizes.units, {1.0: 0.5, 4.0: 0.5})
    assert sizes.units.interval(0.9) == (1.0, 4.0)
    law = bp.Posterior.of(gated(network, [0.0] * 4)).sizes().units
    for level in (0.5, 0.8, 0.95):
        low, high = law.interval(level)
        right = stats.binom(4, 0.5).ppf([(1 - level) / 2, (1 + level) / 2])
        assert [low, high] == right.tolist()
    assert "all units" in str(sizes) and "1 …            4" in str(sizes)
    with pytest.raises(PosteriorError, match="level=90"):
        law.interval(90)
    with pytest.raises(PosteriorError, match="draws=0"):
        bp.Posterior.of(all_open).sizes(draws=0)
