"""What survives of a value: all combinations of some indices of its dimensions, or no such box."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesprune.structure.graph.rules.labels import compact


def box(mask: Tensor) -> list[Tensor] | None:
    """For each dimension which indices survive, if what survives is all their combinations; else None."""
    if not mask.numel():  # the empty rest of a value: there is nothing in it to lose
        return [torch.ones(size, dtype=torch.bool) for size in mask.shape]
    small = compact(mask)  # along the other dimensions it repeats: all of their indices survive, or none
    lines = [small.movedim(d, 0).reshape(small.shape[d], -1).any(1) for d in range(small.ndim)]
    count = 1
    for line in lines:
        count *= int(line.sum())
    if count != int(small.sum()):
        return None
    return [line.expand(size) for line, size in zip(lines, mask.shape, strict=True)]


def take(value: Tensor, kept: list[Tensor]) -> Tensor:
    """The box of a tensor that survives."""
    for dim, line in enumerate(kept):
        if not bool(line.all()):
            value = value.index_select(dim, line.nonzero().squeeze(1))
    return value
