"""Linear regressions whose inputs come in blocks, orthogonal to each other: their posterior factorises."""

import math

import torch
from torch import nn

import bayesprune as bp
from tests.svi.guides.regressions import KEEP, configurations

SLAB_IN_NOISE = 0.3
"""Slab variance times rows, noise 1: so small that many outputs together leave gates in doubt."""


def blocks_of(blocks, outputs, units=6, rows=None, correlation=0.5, seed=0):
    """x (rows, blocks · units), y (rows, outputs), and the exact p(z = 1 | y)."""
    generator = torch.Generator().manual_seed(seed)
    count = blocks * units
    rows = rows or 2 * count
    base = torch.linalg.qr(torch.randn(rows, count, generator=generator, dtype=torch.double))[0] * rows**0.5
    factor = torch.linalg.cholesky((1 - correlation) * torch.eye(units).double() + correlation)
    x = (base.reshape(rows, blocks, units) @ factor.mT).reshape(rows, count)
    slab = math.sqrt(SLAB_IN_NOISE / rows)
    weight = slab * torch.randn(count, outputs, generator=generator, dtype=torch.double)
    weight *= torch.rand(count, 1, generator=generator, dtype=torch.double) < KEEP
    y = x @ weight + torch.randn(rows, outputs, generator=generator, dtype=torch.double)
    z, probs = configurations(units).double(), []
    for part in x.split(units, 1):
        precision = torch.eye(units).double() + slab**2 * z.unsqueeze(2) * (part.mT @ part) * z.unsqueeze(1)
        projected = slab * z.unsqueeze(2) * (part.mT @ y)
        score = (projected * torch.linalg.solve(precision, projected)).sum((1, 2)) / 2
        score -= outputs * torch.logdet(precision) / 2
        score += z.sum(1) * math.log(KEEP) + (1 - z).sum(1) * math.log1p(-KEEP)
        probs.append(torch.softmax(score, 0) @ z)
    dtype = torch.get_default_dtype()
    return x.to(dtype), y.to(dtype), torch.cat(probs)


def gate_blocks(x, outputs):
    """A gated linear model without bias."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(x.shape[1], outputs, bias=False))
    return bp.gate(
        network, x[:1], prior=bp.priors.BernoulliGates(bp.priors.Fixed(KEEP)),
        likelihood=bp.Gaussian(rows=len(x), scale=1.0, learn_scale=False),
        weights=bp.priors.NormalWeights(scale=math.sqrt(SLAB_IN_NOISE / len(x))), initial_inclusion=0.5,
    )  # fmt: skip
