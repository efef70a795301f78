r"""Fusing for edges: those that stay stand in for those that go.

For every unit, with A what its incoming edges are multiplied by in the dense network (samples × fan-in), K
the same in the pruned one, S the edges that stay, and w its weights,

.. math:: w'_S = \arg\min_u \lVert K_S u - A w \rVert^2 + \lambda \lVert u - w_S \rVert^2 .

Where K = A and λ = 0 this adds to w the coefficients of least squares of what is lost on what is kept, as in
the public code of Acharyya et al. (UAI 2021, arXiv 2006.16617), which has one layer. Derived here: several
layers, each with what those before it really hand on, convolutions, weights that are used in several places,
and the ridge.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bayesprune.rows import Inputs
from bayesprune.structure.copying import copy_of
from bayesprune.structure.graph import GraphNetwork
from bayesprune.structure.graph.incoming import incoming


def reweighted_edges(
    network: GraphNetwork, rows: Inputs, masks: Mapping[str, Tensor], ridge: float = 1e-3
) -> GraphNetwork:
    """The same network with edges at zero, and those that stay re-weighted; biases stay.

    Args:
        network: left alone.
        rows: (rows, ...), inputs.
        masks: weight → (its shape), bool, the edges that stay. Weights that no linear map or convolution sums
            with are masked and not re-weighted.
        ridge: λ as a share of the kept columns' mean squared norm; 0 leaves λ out.

    Returns:
        A copy.
    """
    new = copy_of(network)
    weights = dict(new.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].masked_fill_(~mask.to(weights[name].device), 0.0)
    dense = dict(network.named_parameters())
    order = [use.weight for use in next(incoming(network, rows[:1]))]
    for name in dict.fromkeys(order):
        if name in masks and not bool(masks[name].all()):
            own, cross = _products(network, new, rows, name)
            before = dense[name].detach().flatten(1).double().cpu()
            found = refitted(before, masks[name].flatten(1), own, cross, ridge)
            with torch.no_grad():
                weights[name].copy_(found.reshape(weights[name].shape))
    return new


def refitted(weight: Tensor, mask: Tensor, own: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """Weights of a layer's units after least squares.

    Args:
        weight: (units, fan-in), the dense network's.
        mask: (units, fan-in), bool.
        own: (groups, fan-in, fan-in), KᵀK.
        cross: (groups, fan-in, fan-in), KᵀA.
        ridge: as ``reweighted_edges``.

    Returns:
        (units, fan-in), zero where the mask is.
    """
    new = torch.zeros_like(weight)
    per_group = len(weight) // len(own)
    for unit, (dense, stays) in enumerate(zip(weight, mask, strict=True)):
        if not bool(stays.any()):
            continue
        gram = own[unit // per_group]
        square = gram[stays][:, stays]
        missing = cross[unit // per_group][stays] @ dense - square @ dense[stays]
        new[unit, stays] = dense[stays] + _solved(square, missing, ridge * square.diagonal().mean())
    return new


def _solved(square: Tensor, missing: Tensor, strength: Tensor) -> Tensor:
    """(n,), what to add to the weights; without a ridge the least of all solutions."""
    if float(strength) > 0:
        factor = torch.linalg.cholesky(square + strength * torch.eye(len(square), dtype=square.dtype))
        return torch.cholesky_solve(missing[:, None], factor)[:, 0]
    change: Tensor = torch.linalg.lstsq(square, missing[:, None], driver="gelsd").solution[:, 0]
    return change


def _products(network: GraphNetwork, new: GraphNetwork, rows: Inputs, name: str) -> tuple[Tensor, Tensor]:
    """KᵀK and KᵀA of one weight, summed over the places where it is used."""
    own: Tensor | None = None
    cross: Tensor | None = None
    for whole, now in zip(incoming(network, rows, name), incoming(new, rows, name), strict=True):
        for a, k in zip(whole, now, strict=True):
            first, second = k.values.mT @ k.values, k.values.mT @ a.values
            own = first if own is None else own + first
            cross = second if cross is None else cross + second
    assert own is not None and cross is not None
    return own, cross
