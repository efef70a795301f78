"""Terms: what a network's cost is a sum of, and which units own each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayesprune.structure.groups import WHOLE, Slot


@dataclass(frozen=True)
class Term:
    """The numbers of a tensor, or the products of an operation: one is there when all units that own it are.

    Attributes:
        shape: how many there are along each dimension.
        slots: which units own what along a dimension; a ``WHOLE`` slot owns all of it.
        parameters: trainable numbers that one of them stands for.
        macs: multiply-accumulates per row that one of them stands for.
        more: what else one of them stands for, in an order of whoever asks (milliseconds, bytes); as long in
            every term that has any.
    """

    shape: torch.Size
    slots: tuple[Slot, ...]
    parameters: float = 0.0
    macs: float = 0.0
    more: tuple[float, ...] = ()

    def living(self, alive: Mapping[str, Tensor]) -> Term | None:
        """What is left of it; None where its section is gone.

        Args:
            alive: group → (group.size,), bool by original unit id.
        """
        shape, masks = list(self.shape), dict[int, Tensor]()
        for slot in self.slots:
            there = torch.cat([alive[slot.group], torch.ones(1, dtype=torch.bool)])[slot.unit_ids]
            if slot.dim == WHOLE and not bool(there):
                return None
            masks[slot.dim] = masks[slot.dim] & there if slot.dim in masks else there
        for dim, mask in masks.items():
            if dim != WHOLE:
                shape[dim] = int(mask.sum())
        slots = tuple(
            s if s.dim == WHOLE else replace(s, unit_ids=s.unit_ids[masks[s.dim]]) for s in self.slots
        )
        return replace(self, shape=torch.Size(shape), slots=slots)
