"""What survives of a value: all combinations of some indices of its dimensions, or no such box."""

from __future__ import annotations

import torch
from torch import Tensor


def box(mask: Tensor) -> list[Tensor] | None:
    """For each dimension which indices survive, if what survives is all their combinations; else None."""
    if not mask.numel():  # the empty rest of a value: there is nothing in it to lose
        return [torch.ones(size, dtype=torch.bool) for size in mask.shape]
    lines = [mask.movedim(d, 0).reshape(mask.shape[d], -1).any(1) for d in range(mask.ndim)]
    count = 1
    for line in lines:
        count *= int(line.sum())
    return lines if count == int(mask.sum()) else None


def take(value: Tensor, kept: list[Tensor]) -> Tensor:
    """The box of a tensor that survives."""
    for dim, line in enumerate(kept):
        if not bool(line.all()):
            value = value.index_select(dim, line.nonzero().squeeze(1))
    return value
