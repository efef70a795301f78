"""Fits small enough to look at: one, and three side by side; draws of them with predictions."""

import pytest
import torch
from torch import nn

import bayesprune as bp

ROWS = 120
X = torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).long()
TARGETS = X[:, 0] + 0.3 * torch.randn(ROWS, generator=torch.Generator().manual_seed(1))


def fitted(seed, epochs, y=Y, outputs=2, likelihood=None):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, outputs))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=1.5))
    gated = bp.gate(network, X[:1], prior=prior, likelihood=likelihood or bp.Categorical(rows=ROWS))
    gates = bp.GateSteps(learning_rate=0.5, momentum=0.5, clip=1.0, every=1)
    recipe = bp.Recipe(
        gates=gates, shrink=bp.Shrink(every=3), learning_rate=1e-2, compact_learning_rate=2e-3, decide=0.5
    )
    return bp.fit(gated, (X, y), epochs=epochs, batch_size=20, seed=seed, recipe=recipe, progress=False)


@pytest.fixture(scope="session")
def fits():
    """Three fits; the last one has fewer epochs."""
    return [fitted(0, 6), fitted(1, 6), fitted(2, 4)]


@pytest.fixture(scope="session")
def draws(fits):
    """Draws of all three, with predictions of the rows."""
    return bp.Posterior.of(fits).to_arviz(draws=40, prior=0, rows=(X, Y), observed=True)


@pytest.fixture(scope="session")
def regression():
    """Draws of a fit of numbers, with predictions."""
    fit = fitted(0, 6, TARGETS, 1, bp.Gaussian(rows=ROWS, scale=0.3))
    return fit.posterior().to_arviz(draws=200, prior=0, rows=(X, TARGETS), observed=True)
