"""Which hidden units of two fits do the same: the assignment that makes their activations agree best."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from bayesprune.svi.result import FitResult, prune

SAME = 0.8
"""Correlation of activations, in absolute value, from which two units count as the same."""
MOST_VALUES = 4096
"""Of a unit, over rows and positions."""

Array = np.ndarray[Any, Any]


def same_units(first: Array, second: Array) -> int:
    """How many units of two networks do the same (Hungarian method on absolute correlations).

    Args:
        first: (values, units), activations on the same rows.
        second: (values, other units).

    Returns:
        Matched pairs whose correlation is at least 0.8 in absolute value; a constant unit matches none.
    """
    if not first.shape[1] or not second.shape[1]:
        return 0
    correlation = np.abs(_standardised(first).T @ _standardised(second)) / len(first)
    rows, columns = linear_sum_assignment(-correlation)
    return int((correlation[rows, columns] >= SAME).sum())


def _standardised(values: Array) -> Array:
    centred = values - values.mean(0)
    scale = centred.std(0)
    return np.asarray(centred / np.where(scale > 1e-12, scale, np.inf))


def matched_jaccard(fits: Sequence[FitResult], x: Tensor) -> dict[str, float]:
    """Jaccard of the kept units of every pair of fits, after matching them by what they do.

    Args:
        fits: of the same network.
        x: (rows, ...), inputs.

    Returns:
        Group → mean over pairs of same / (kept in one + kept in the other − same). Groups whose name is that
        of no layer (inputs, flattened features, whole sections) are left out: their units have places.
    """
    per_fit = [activations(fit, x) for fit in fits]
    found, nothing = {}, np.empty((0, 0))  # of a layer that a fit has lost with its section
    for group in dict.fromkeys(name for fit in per_fit for name in fit):
        shares = []
        for a, b in combinations([fit.get(group, nothing) for fit in per_fit], 2):
            same = same_units(a, b)
            union = a.shape[1] + b.shape[1] - same
            shares.append(same / union if union else 1.0)
        found[group] = float(np.mean(shares))
    return found


def activations(fit: FitResult, x: Tensor) -> dict[str, Array]:
    """What the kept units of every layer's group give, before the non-linearity.

    Args:
        fit: of a network.
        x: (rows, ...), inputs.

    Returns:
        Group → (values, units kept), values over rows and positions.
    """
    network = prune(fit).cpu()
    modules = dict(network.named_modules())
    taken: dict[str, Array] = {}
    hooks = []
    for group in fit.gated.groups:
        module = modules.get(group.name)
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            dim = -1 if isinstance(module, nn.Linear) else 1

            def take(_: Any, __: Any, out: Tensor, name: str = group.name, dim: int = dim) -> None:
                values = out.movedim(dim, -1).flatten(0, -2)
                step = max(1, len(values) // MOST_VALUES)
                taken[name] = values[::step].double().numpy()

            hooks.append(module.register_forward_hook(take))
    with torch.no_grad():
        network(x.cpu())
    for hook in hooks:
        hook.remove()
    return {group.name: taken[group.name] for group in fit.gated.groups if group.name in taken}
