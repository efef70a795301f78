"""The smallest network that a chain can be cut down to: the least units in every group, all of them read."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesprune.structure.chain import Chain


def least_alive(chain: Chain, least: int = 1) -> dict[str, Tensor]:
    """Which units the smallest network keeps.

    Args:
        chain: the network, as it is now.
        least: units that every group keeps; all of them where it has no more.

    Returns:
        group → (group.size,) bool by original unit id. Where groups own columns together (filters and their
        flattened features), the units of the later group sit on columns of the earlier one's.
    """
    alive: dict[str, Tensor] = {}
    for group in chain.groups:
        slot = next(s for s in chain.slots if s.group == group.name and s.reads)
        open_columns = torch.ones(len(slot.unit_ids), dtype=torch.bool)
        for other in chain.slots:
            if (other.tensor, other.dim) == (slot.tensor, slot.dim) and other.group in alive:
                open_columns &= alive[other.group][other.unit_ids]
        mask = torch.zeros(group.size, dtype=torch.bool)
        for columns in (open_columns, ~open_columns):  # the second only where the first has too few
            units = slot.unit_ids[columns].unique()
            mask[units[: max(least - int(mask.sum()), 0)]] = True
        alive[group.name] = mask
    return alive
