"""Gates by group, as a model draws them, in the one vector that a network's graphs take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bayesprune.structure.groups import Group


def pack_gates(groups: Sequence[Group], alive: Tensor, gates: Mapping[str, Tensor] | None) -> Tensor | None:
    """All gates side by side; groups that are not named are open.

    Args:
        groups: of the network.
        alive: (units of all groups,), bool: not cut.
        gates: group → (size,) or (rows, size), by original unit, or by the units that are left.

    Returns:
        (units + 1,) or (rows, units + 1), the last one open, for what belongs to no unit; None where no gates
        are given.
    """
    if not gates:
        return None
    like = next(iter(gates.values()))
    rows = max((len(z) for z in gates.values() if z.ndim == 2), default=0)
    lead = (rows,) if rows else ()
    parts, start = [], 0
    for group in groups:
        z = gates.get(group.name, like.new_ones(group.size))
        if z.shape[-1] != group.size:  # only the units that are left
            left = alive[start : start + group.size].nonzero().squeeze(1).to(z.device)
            z = z.new_zeros(*z.shape[:-1], group.size).index_copy(-1, left, z)
        parts.append(z.expand(*lead, group.size))
        start += group.size
    return torch.cat([*parts, like.new_ones(*lead, 1)], -1)
