"""The smallest network that one can be cut down to: the least units in every group, all of them read."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bayesprune.structure.expected import Costed
from bayesprune.structure.groups import close_over


def minimal_masks(network: Costed, least: int | Mapping[str, int] = 1) -> dict[str, Tensor]:
    """Which units the smallest network keeps.

    Args:
        network: as it is now.
        least: units that every group keeps, or group → units; all of them where it has no more. Optional ones
            (sections) all go, and what is inside them.

    Returns:
        group → (group.size,) bool by original unit id. Where groups own columns together (filters and their
        flattened features), the units of the later group sit on columns of the earlier one's.
    """
    alive: dict[str, Tensor] = {}
    for group in network.groups:
        number = least if isinstance(least, int) else least.get(group.name, 1)
        slot = next((s for s in network.slots if s.group == group.name and s.reads), None)
        mask = torch.zeros(group.size, dtype=torch.bool)
        if slot is None:  # sections; or units that are multiplied with each other, and no weight reads
            mask[: 0 if group.optional else number] = True
            alive[group.name] = mask
            continue
        open_columns = torch.ones(len(slot.unit_ids), dtype=torch.bool)
        for other in network.slots:
            if (other.tensor, other.dim) == (slot.tensor, slot.dim) and other.group in alive:
                there = torch.cat([alive[other.group], torch.ones(1, dtype=torch.bool)])
                open_columns &= there[other.unit_ids]
        for columns in (open_columns, ~open_columns):  # the second only where the first has too few
            units = slot.unit_ids[columns & (slot.unit_ids >= 0)].unique()
            mask[units[: max(number - int(mask.sum()), 0)]] = True
        alive[group.name] = mask
    return close_over(network.slots, alive) if any(g.optional for g in network.groups) else alive
