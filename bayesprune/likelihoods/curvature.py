"""Curvature of a row's nats in the outputs: what Gauss–Newton approximations are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesprune.likelihoods.base import Likelihood


def in_outputs(likelihood: Likelihood, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """First and second derivatives of each row's negative log-likelihood in its outputs.

    Args:
        likelihood: how outputs explain targets.
        outputs: (rows, ...).
        y: targets of the same rows.

    Returns:
        (rows, outputs) and (rows, outputs, outputs), nats, outputs flattened.
    """
    with torch.enable_grad():
        free = outputs.detach().requires_grad_(True)
        (first,) = torch.autograd.grad(likelihood.nll(free, y).sum(), free, create_graph=True)
        flat = first.flatten(1)
        columns = [
            torch.autograd.grad(flat[:, o].sum(), free, retain_graph=True, allow_unused=True)[0]
            if flat.requires_grad
            else None
            for o in range(flat.shape[1])
        ]
    zero = torch.zeros_like(outputs)
    return flat.detach(), torch.stack([zero if c is None else c for c in columns], 1).flatten(2).detach()


def root_of(second: Tensor) -> Tensor:
    """(rows, outputs, outputs), R with RᵀR the curvature; what is below zero is taken as flat.

    Args:
        second: (rows, outputs, outputs), symmetric.

    Example:
        >>> curvature = torch.tensor([[[2.0, 1.0], [1.0, 2.0]]])
        >>> root = root_of(curvature)
        >>> bool(torch.allclose(root.mT @ root, curvature, atol=1e-6))
        True
    """
    if second.shape[-1] == 1:
        return second.clamp_min(0).sqrt()
    values, vectors = torch.linalg.eigh((second + second.mT) / 2)
    root: Tensor = values.clamp_min(0).sqrt()[..., None] * vectors.mT
    return root
