"""Quantiles of mixtures: by bisection of the exact distribution function, or of weighted values."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HALVINGS = 60
"""Of an interval of twenty standard deviations: to the last bit of double precision."""


def of_continuous(
    below: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, levels: tuple[float, ...]
) -> Tensor:
    """Where a continuous distribution function reaches some levels.

    Args:
        below: P(Y ≤ y), for y of the shape of ``low``.
        low: (...), under all of the levels.
        high: (...), above them.
        levels: in (0, 1).

    Returns:
        (levels, ...).
    """
    found = []
    for level in levels:
        left, right = low.clone(), high.clone()
        for _ in range(HALVINGS):
            middle = (left + right) / 2
            short = below(middle) < level
            left, right = torch.where(short, middle, left), torch.where(short, right, middle)
        found.append((left + right) / 2)
    return torch.stack(found)


def of_counts(up_to: Callable[[Tensor], Tensor], rate: Tensor, levels: tuple[float, ...]) -> Tensor:
    """The smallest counts whose distribution function reaches some levels.

    Args:
        up_to: P(Y ≤ k), for whole k of the shape of ``rate``.
        rate: (...), the largest of the components' rates, which bounds the search.
        levels: in (0, 1).

    Returns:
        (levels, ...), whole numbers.
    """
    most = (rate + 40 * rate.sqrt() + 40).ceil()
    found = []
    for level in levels:
        left, right = torch.full_like(most, -1.0), most.clone()  # P(Y ≤ left) < level ≤ P(Y ≤ right)
        while bool((right - left > 1).any()):
            middle = torch.where(right - left > 1, ((left + right) / 2).floor(), right)
            short = up_to(middle) < level
            left, right = torch.where(short, middle, left), torch.where(short, right, middle)
        found.append(right)
    return torch.stack(found)


def of_values(values: Tensor, shares: Tensor, levels: tuple[float, ...]) -> Tensor:
    """The smallest values whose share, with all that are smaller, reaches some levels.

    Args:
        values: (members, ...).
        shares: (members,), which sum to one.
        levels: in (0, 1).

    Returns:
        (levels, ...).

    Example:
        >>> of_values(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([0.2, 0.5, 0.3]), (0.4, 0.6, 0.9))
        tensor([1., 2., 3.])
    """
    ordered, places = values.sort(0)
    reached = shares.to(values)[places].cumsum(0)
    found = []
    for level in levels:
        first = (reached < level - 1e-9).sum(0, keepdim=True).clamp_max(len(values) - 1)
        found.append(ordered.gather(0, first).squeeze(0))
    return torch.stack(found)
