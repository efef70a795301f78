"""Gates by group, as a model draws them, in the one vector that a network's graphs take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bayesprune.structure.groups import Group


def living(groups: Sequence[Group], alive: Tensor) -> dict[str, Tensor]:
    """Group → (units that are left,), their places in it.

    Args:
        groups: of the network.
        alive: (units of all groups,), bool: not cut.
    """
    parts = alive.split([group.size for group in groups])
    return {g.name: part.nonzero().squeeze(1) for g, part in zip(groups, parts, strict=True)}


def pack_gates(groups: Sequence[Group], left: Mapping[str, Tensor], gates: Mapping[str, Tensor]) -> Tensor:
    """All gates side by side; groups that are not named are open.

    Args:
        groups: of the network.
        left: group → (units that are left,), their places in it.
        gates: group → (size,) or (rows, size), by original unit, or by the units that are left; one at least.

    Returns:
        (units + 1,) or (rows, units + 1), the last one open, for what belongs to no unit.
    """
    like = next(iter(gates.values()))
    rows = 0
    for z in gates.values():
        rows = max(rows, len(z)) if z.ndim == 2 else rows
    lead = (rows,) if rows else ()
    parts = []
    for group in groups:
        given = gates.get(group.name)
        z = like.new_ones(group.size) if given is None else given
        if z.shape[-1] != group.size:  # only the units that are left
            places = left[group.name].to(z.device)
            z = z.new_zeros(*z.shape[:-1], group.size).index_copy(-1, places, z)
        parts.append(z.expand(*lead, group.size))
    return torch.cat([*parts, like.new_ones(*lead, 1)], -1)


class GroupGates:
    """Gates as a model draws them: each reader of one whole group takes its gates as they are.

    They are laid side by side only for who reads across groups. That saves a copy of all gates of all rows,
    and as much again backwards.

    Args:
        groups: of the network.
        left: group → (units that are left,), their places in it.
        gates: as in :func:`pack_gates`.
    """

    def __init__(
        self, groups: Sequence[Group], left: Mapping[str, Tensor], gates: Mapping[str, Tensor]
    ) -> None:
        self.groups, self.left, self.gates = groups, left, gates
        self._flat: Tensor | None = None

    def of_group(self, name: str, units: int) -> Tensor | None:
        """(units,) or (rows, units), gates of all living units of a group; None where they have to be looked
        up, because it is not named (and open), or has lost units since.
        """
        z = self.gates.get(name)
        return z if z is not None and z.shape[-1] == units and z.ndim < 3 else None

    def are_open(self, groups: frozenset[str]) -> bool:
        """Whether none of these groups has gates."""
        return groups.isdisjoint(self.gates)

    def index_select(self, dim: int, columns: Tensor) -> Tensor:
        """(..., columns), gates by their position among all units; the last one is open."""
        if self._flat is None:
            self._flat = pack_gates(self.groups, self.left, self.gates)
        return self._flat.index_select(dim, columns)


def batch_shape(gates: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Leading dimensions of the gates beyond (rows, units)."""
    shapes = [z.shape[:-2] for z in gates.values() if z.ndim > 2]
    return tuple(torch.broadcast_shapes(*shapes)) if shapes else ()


def flat_rows(gate: Tensor, lead: tuple[int, ...], rows: int) -> Tensor:
    """Gates with draws in front → one row of gates for each row of the enlarged batch."""
    gate = gate if gate.ndim > 1 else gate.unsqueeze(0)
    units = gate.shape[-1]  # none of them may be left
    return gate.expand(*lead, rows, units).reshape(math.prod(lead) * rows, units)
