"""Groups: which units can be removed, and what each of them touches.

A group is a set of units that live and die one by one. Its **slots** say where: every slot is one dimension
of one parameter or buffer, with the original unit id of each of its rows or columns. Surgery needs nothing
else, so whoever finds groups in a wider class of networks only has to produce these values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """Units that are gated, and removed, one by one; always described as in the dense network.

    Attributes:
        name: the module that produces the units (``'conv1'``), ``'input'``, or the flatten whose features
            they are.
        size: units in the dense network. It never changes: a prior always sees the original group.
        fan_in: incoming weights of one unit; 1 where no layer produces it (inputs, flattened features).
        fan_out: outgoing weights of one unit.
        parameters: parameters that one unit accounts for in the dense network.
        macs: multiply-accumulates that one unit accounts for in the dense network, per row.
        optional: whether the network works without any of them, as it does without the sections beside its
            shortcuts; of every other group a unit has to stay.
    """

    name: str
    size: int
    fan_in: int = 1
    fan_out: int = 1
    parameters: int = 1
    macs: int = 1
    optional: bool = False


@dataclass(frozen=True)
class Slot:
    """One dimension of one tensor, labelled by units.

    Attributes:
        tensor: name in the network's ``state_dict``, such as ``'fc1.weight'``; with a ``/`` in it of what is
            in no tensor: inputs, zeros of a padding.
        dim: the dimension that the units run along; ``WHOLE`` where the whole tensor is one unit's, a
            section's.
        group: name of the group.
        unit_ids: (length of that dimension,), original id of the unit that each row or column belongs to; −1
            for one that belongs to none of this group's. (1,) for ``WHOLE``.
        reads: whether these are a reader's columns: a unit without any left does nothing, and dies.
    """

    tensor: str
    dim: int
    group: str
    unit_ids: Tensor = field(repr=False)
    reads: bool = False


WHOLE = -2

Keep = dict[tuple[str, int], Tensor]
"""(tensor name, dimension) → (length,) bool: which rows or columns stay. The one map that drives surgery."""


class ByGroup:
    """Positions of units, laid end to end, as ids in each of the groups that they are in.

    What it has said of some units it says of the same ones again, in the same memory: a layer's weight, its
    norm and what reads them have one row of units, and a concatenation one of each of its groups.

    Args:
        sizes: group → its size, in order.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes, self._known = dict(sizes), dict[tuple[bytes, ...], list[tuple[str, Tensor]]]()

    def __call__(self, *units: Tensor) -> list[tuple[str, Tensor]]:
        """Each group that some are of, and their ids in it.

        Args:
            units: (...) each, positions among the units of all groups; −1, or any
                number past the last, for none. Where several know a unit, the last one counts.

        Returns:
            Groups, with (...), the ids in each; −1 for those that are of another one.
        """
        key = tuple(map(key_of, units))
        if key not in self._known:
            self._known[key] = list(_by_group(self._sizes, *units))
        return self._known[key]


def key_of(ids: Tensor) -> bytes:
    """Equal for equal ids, and for no others: a digest, where a densenet's ids would take many megabytes."""
    return hashlib.blake2b(ids.numpy().tobytes(), digest_size=16).digest()


def _by_group(sizes: Mapping[str, int], *units: Tensor) -> Iterator[tuple[str, Tensor]]:
    names, ends = list(sizes), np.cumsum([*sizes.values()], dtype=np.int64)
    known = [u.numpy() for u in units]  # several times as fast as tensors of so few numbers
    numbers = [np.where(u < 0, -1, np.searchsorted(ends, u, side="right")) for u in known]
    for group in sorted({number for several in numbers for number in np.unique(several).tolist()}):
        if not 0 <= group < len(names):
            continue
        first = int(ends[group]) - sizes[names[group]]
        ids = np.full_like(known[0], -1)
        for positions, number in zip(known, numbers, strict=True):
            ids = np.where(number == group, positions - first, ids)
        yield names[group], torch.from_numpy(ids)


def keep_map(slots: tuple[Slot, ...], alive: dict[str, Tensor]) -> Keep:
    """Which rows and columns stay when only the units marked alive do.

    Two groups may own the same columns (a filter and the features that it is flattened to): a column stays
    when every unit that owns it is alive.

    Args:
        slots: where the units sit now.
        alive: for each group a (group.size,) bool by original unit id.

    Returns:
        The map, restricted to dimensions that lose something.
    """
    keep: Keep = {}
    for slot in slots:
        stays = _of_units(alive, slot)
        key = (slot.tensor, slot.dim)
        keep[key] = keep[key] & stays if key in keep else stays
    return {key: stays for key, stays in keep.items() if not bool(stays.all())}


def _of_units(alive: dict[str, Tensor], slot: Slot) -> Tensor:
    """(length,), whether each row or column's unit is alive; those of no unit are."""
    mask = alive[slot.group]
    return torch.cat([mask, mask.new_ones(1)])[slot.unit_ids]


def close_over(slots: tuple[Slot, ...], alive: dict[str, Tensor]) -> dict[str, Tensor]:
    """Let units die whose every reader is gone: a filter none of whose flattened features is still read, and
    all that is inside a dead section.

    Args:
        slots: where the units sit now.
        alive: for each group a (group.size,) bool by original unit id.

    Returns:
        ``alive`` with such units (and those that follow from them) switched off; the argument is left alone.
    """
    alive = {name: mask.clone() for name, mask in alive.items()}
    read = {slot.group for slot in slots if slot.reads}  # others are multiplied with each other, as in q · k
    while True:
        before = sum(int(mask.sum()) for mask in alive.values())
        gone = {s.tensor for s in slots if s.dim == WHOLE and not bool(alive[s.group][s.unit_ids])}
        keep: Keep = {}
        for slot in slots:
            if slot.dim != WHOLE and slot.tensor not in gone:
                stays, key = _of_units(alive, slot), (slot.tensor, slot.dim)
                keep[key] = keep[key] & stays if key in keep else stays
        owned: dict[str, Tensor] = {name: torch.zeros_like(mask) for name, mask in alive.items()}
        for slot in slots:
            if slot.tensor in gone:
                continue
            if slot.dim == WHOLE:
                owned[slot.group][slot.unit_ids] = True
            elif slot.reads or slot.group not in read:
                ids = slot.unit_ids[keep[slot.tensor, slot.dim]]
                owned[slot.group][ids[ids >= 0]] = True
        for name in alive:
            alive[name] &= owned[name]
        if sum(int(mask.sum()) for mask in alive.values()) == before:
            return alive


def relabel(slots: tuple[Slot, ...], keep: Keep) -> tuple[Slot, ...]:
    """The same slots after a cut: only the ids of what stayed."""
    return tuple(
        replace(s, unit_ids=s.unit_ids[keep[s.tensor, s.dim]]) if (s.tensor, s.dim) in keep else s
        for s in slots
    )


def least_units(
    groups: tuple[Group, ...], slots: tuple[Slot, ...], alive: dict[str, Tensor], least: int
) -> dict[str, int]:
    """How many units each group has to keep: none of what is optional, or inside a section that is dead.

    Args:
        groups: of the network.
        slots: where the units sit now.
        alive: group → (group.size,) bool, with the sections that are about to die switched off.
        least: units that any other group keeps, or all where it has no more.

    Returns:
        group → units.
    """
    if not any(group.optional for group in groups):
        return {group.name: min(least, int(alive[group.name].sum())) for group in groups}
    standing = close_over(slots, alive)
    return {
        group.name: 0 if group.optional else min(least, int(standing[group.name].sum())) for group in groups
    }
