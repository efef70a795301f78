"""Several starts of a linear model, compared by scores that are known in closed form."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from torch import nn

import bayesprune as bp
from bayesprune.errors import PosteriorError
from bayesprune.posterior import compare_starts

ROWS, SCALE, PRICE = 200, 0.5, 5.0


@pytest.fixture(scope="module")
def problem():
    """Four starts, without moves at the decision; seed 0 loses the third input."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 6, generator=generator)
    y = (x[:, 0] + 0.7 * x[:, 2] + torch.randn(ROWS, generator=generator))[:, None]
    fits = []
    for seed in range(4):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(6, 1, bias=False))
        prior = bp.priors.BernoulliGates(bp.priors.Flattening(PRICE))
        noise = bp.Gaussian(rows=ROWS, scale=1.0, learn_scale=False)
        gated = bp.gate(network, x[:1], prior=prior, likelihood=noise, weights=bp.priors.NormalWeights(SCALE))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fits.append(
                bp.fit(gated, (x, y), epochs=25, batch_size=50, seed=seed, progress=False,
                       recipe=bp.Recipe(moves=None))
            )  # fmt: skip
    return fits, (x, y)


def exact(fit, x, y):
    kept = fit.gated.alive.numpy().astype(bool)
    part = x.double().numpy()[:, kept]
    covariance = np.eye(ROWS) + SCALE**2 * part @ part.T
    return multivariate_normal.logpdf(y[:, 0].numpy(), np.zeros(ROWS), covariance) - PRICE * kept.sum()


def test_starts_are_ordered_by_the_exact_evidence(problem):
    fits, (x, y) = problem
    found = compare_starts(fits, (x, y))
    right = np.array([exact(fit, x, y) for fit in fits])
    assert found.log_joint - found.log_joint[0] == pytest.approx(right - right[0], abs=1e-3)
    assert np.ptp(right) > 20  # they differ: some have lost what they need
    assert found.best is fits[int(right.argmax())] and found.best.gated.alive[2]
    assert not found.why_elbo and "weights integrated out" in str(found)
    assert str(found).splitlines()[1].startswith(f"  start {int(right.argmax())}:     0.00   kept input")


def test_the_elbo_is_the_one_of_the_decided_network(problem):
    fits, (x, y) = problem
    found = compare_starts(fits, (x, y), by="elbo")
    assert found.why_elbo == "as asked" and np.isnan(found.log_joint).all()
    for fit, elbo in zip(fits[1:], found.elbo[1:], strict=True):
        differences = []
        for each in (fit, fits[0]):
            weights = each.gated.weight_tensors()["0.weight"].detach().double().numpy()[0]
            kept = each.gated.alive.numpy().astype(bool)
            nats = norm.logpdf(y.numpy()[:, 0], x.double().numpy()[:, kept] @ weights, 1.0).sum()
            differences.append(nats - 0.5 * (weights**2).sum() / SCALE**2 - PRICE * kept.sum())
        assert elbo - found.elbo[0] == pytest.approx(differences[0] - differences[1], abs=1e-2)


def test_what_cannot_be_compared_is_refused_or_said(problem):
    fits, (x, y) = problem
    with pytest.raises(PosteriorError, match="all 200 training rows, and got 7"):
        compare_starts(fits, (x[:7], y[:7]))
    with pytest.raises(PosteriorError, match="by='loss' must be"):
        compare_starts(fits, (x, y), by="loss")
    network = nn.Sequential(nn.Linear(6, 80), nn.Tanh(), nn.Linear(80, 1))
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(PRICE))
    noise = bp.Gaussian(rows=ROWS, scale=1.0, learn_scale=False)
    wide = bp.gate(network, x[:1], prior=prior, likelihood=noise)
    assert "not all weights" in compare_starts([wide, wide], (x, y), draws=2).why_elbo
    with pytest.raises(PosteriorError, match=r"by='evidence'\): not all weights"):
        compare_starts([wide, wide], (x, y), by="evidence")
