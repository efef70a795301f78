"""q(w | z): the posterior that a few learned rows of data would give the open weights."""

from __future__ import annotations

import math

import torch
from pyro.distributions import MultivariateNormal
from torch import Tensor, nn


class PseudoRows(nn.Module):
    r"""A Gaussian over weights given gates: prior times the likelihood of learned pseudo-rows.

    With prior w ~ N(0, diag τ²), u = w / τ, and m(z) ∈ {0, 1}^D telling which weights can have an effect:

    .. math:: q(w \mid z) \propto \mathcal{N}(w; 0, \mathrm{diag}\,\tau^2)
              \exp\!\big(-\tfrac12 \| R (m(z) \circ u) - t \|^2\big)

    so u | z ~ N(P⁻¹ h, P⁻¹) with P = I + diag(m) RᵀR diag(m) and h = m ∘ Rᵀt. A weight behind a closed gate
    has its prior, exactly and at no cost. For a linear model with Gaussian noise the data's own likelihood
    has this form, so that with R of D rows the family holds the exact q(w | z) for *every* z at once; with a
    diagonal R it is the paired mean-field of Titsias & Lázaro-Gredilla, "Spike and Slab Variational Inference
    for Multi-Task and Multiple Kernel Learning" (NIPS 2011). The joint form was derived here, and is proved
    against the conjugate posterior in the tests.

    Args:
        prior_scale: (D,), standard deviation τ of every weight's prior.
        joint: R is a full matrix; else a diagonal.
        rows: rows of the real data; sets the unit in which R and t are learned.

    Attributes:
        matrix: (D, D), or (D,) where not joint: R / √rows.
        target: (D,), t / √rows.
    """

    prior_scale: Tensor

    def __init__(self, prior_scale: Tensor, joint: bool, rows: int) -> None:
        super().__init__()
        self.register_buffer("prior_scale", prior_scale)
        self.unit = math.sqrt(rows)
        start = torch.full_like(prior_scale, 0.1)
        self.matrix = nn.Parameter(torch.diag(start) if joint else start)
        self.target = nn.Parameter(torch.zeros_like(prior_scale))

    def forward(self, mask: Tensor) -> MultivariateNormal:
        """The distribution of the weights, batch shape (...), event shape (D,).

        Args:
            mask: (..., D), m(z).
        """
        matrix = self.matrix if self.matrix.ndim == 2 else torch.diag(self.matrix)
        rows = self.unit * matrix * mask.unsqueeze(-2)  # (..., D, D)
        precision = rows.mT @ rows + torch.eye(mask.shape[-1], dtype=mask.dtype, device=mask.device)
        information = (rows.mT @ (self.unit * self.target)).unsqueeze(-1)  # (..., D, 1)
        # P = UᵀU with U lower triangular (a Cholesky factor, read backwards), so that U⁻¹ = P^{-1/2} is too.
        factor = torch.linalg.cholesky(precision.flip(-2, -1)).flip(-2, -1).mT
        eye = torch.eye(mask.shape[-1], dtype=mask.dtype, device=mask.device)
        root = torch.linalg.solve_triangular(factor, eye, upper=False)  # (..., D, D), root rootᵀ = P⁻¹
        mean = (root @ (root.mT @ information)).squeeze(-1)
        scale = self.prior_scale
        return MultivariateNormal(scale * mean, scale_tril=scale.unsqueeze(-1) * root, validate_args=False)
