"""Which hidden units of two fits do the same: the assignment that makes their activations agree best."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bayesprune.rows import Inputs, run
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


def matched_jaccard(fits: Sequence[FitResult], x: Inputs) -> dict[str, float]:
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


def activations(fit: FitResult, x: Inputs) -> dict[str, Array]:
    """What the kept units of every layer's group give, before the non-linearity.

    Args:
        fit: of a network.
        x: (rows, ...), inputs.

    Returns:
        Group → (values, units kept), values over rows and positions.
    """
    network = prune(fit).cpu()
    weights = {n.removesuffix(".weight"): p for n, p in network.named_parameters() if n.endswith(".weight")}
    recorder = _Recorder({g.name: weights[g.name] for g in fit.gated.groups if g.name in weights})
    with torch.no_grad(), recorder:
        run(network, x.to("cpu"))
    return recorder.taken


class _Recorder(TorchFunctionMode):
    """Keeps what products and convolutions with given weights give, called by a module or by a graph."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self._names = {weight.data_ptr(): name for name, weight in weights.items() if weight.numel()}
        self.taken: dict[str, Array] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        kind, weight = getattr(func, "__name__", ""), args[1] if len(args) > 1 else None
        if isinstance(weight, Tensor) and ("linear" in kind or "conv" in kind):
            name = self._names.get(weight.data_ptr())
            if name is not None and name not in self.taken:
                values = out.movedim(-1 if "linear" in kind else 1, -1).flatten(0, -2)
                step = max(1, len(values) // MOST_VALUES)
                self.taken[name] = values[::step].double().numpy()
        return out
