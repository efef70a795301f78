"""Linear regressions with gated inputs, and their exact posterior by enumeration of the gates."""

import torch
from torch import nn

import bayesprune as bp

KEEP, SLAB, NOISE = 0.3, 1.0, 1.0


def rows_of(units, rows=40, correlation=0.0, seed=2):
    """x (rows, units) of a pairwise correlation, and y (rows,); the first inputs matter most."""
    generator = torch.Generator().manual_seed(seed)
    factor = torch.linalg.cholesky((1 - correlation) * torch.eye(units) + correlation)
    x = torch.randn(rows, units, generator=generator) @ factor.T
    weight = torch.linspace(0.6, 0.0, units)
    return x, x @ weight + NOISE * torch.randn(rows, generator=generator)


def orthogonal(units, rows=100, seed=0):
    """Inputs that are exactly uncorrelated, so that the posterior is a product over them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.linalg.qr(torch.randn(rows, units, generator=generator))[0] * rows**0.5
    return x, x @ torch.linspace(0.6, 0.0, units) + NOISE * torch.randn(rows, generator=generator)


def gate(x, scale=SLAB, **weights):
    """A gated linear model without bias."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(x.shape[1], 1, bias=False))
    return bp.gate(
        network, x[:1], prior=bp.priors.BernoulliGates(bp.priors.Fixed(KEEP)),
        likelihood=bp.Gaussian(rows=len(x), scale=NOISE, learn_scale=False),
        weights=bp.priors.NormalWeights(scale=scale, **weights), initial_inclusion=0.5,
    )  # fmt: skip


def configurations(units):
    return ((torch.arange(2**units).unsqueeze(1) >> torch.arange(units)) & 1).to(torch.get_default_dtype())


def conjugate(x, y, z):
    """Mean and covariance of w given y and one z, in textbook form."""
    gated = x * z
    precision = gated.T @ gated / NOISE**2 + torch.eye(x.shape[1]) / SLAB**2
    covariance = torch.linalg.inv(precision)
    return covariance @ gated.T @ y / NOISE**2, covariance


def enumerate_exactly(x, y, scale=SLAB):
    """(units,) p(z = 1 | y), and log p(y): y | z is N(0, noise² I + scale² x_z x_zᵀ)."""
    z = configurations(x.shape[1])
    gated = x * z.unsqueeze(1)
    covariance = NOISE**2 * torch.eye(len(x)) + scale**2 * gated @ gated.mT
    scores = torch.distributions.MultivariateNormal(torch.zeros(len(x)), covariance).log_prob(y)
    keep = torch.tensor(KEEP)
    scores = scores + z.sum(-1) * keep.log() + (1 - z).sum(-1) * (1 - keep).log()
    return torch.softmax(scores, 0) @ z, torch.logsumexp(scores, 0)
