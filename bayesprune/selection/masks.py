"""Masks: which units of each group stay; what a network must keep to be a network; how large it then is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bayesprune.errors import SelectionError
from bayesprune.structure import Group, Slot
from bayesprune.structure.groups import close_over
from bayesprune.structure.naming import no_group

Masks = dict[str, Tensor]
"""group → (group.size,) bool, on the CPU, by original unit id: True stays. Groups that are not named stay "
"whole."""

Scores = dict[str, Tensor]
"""group → (group.size,) float: the higher, the later a unit goes. Infinite: it stays whatever the budget."""


def whole(groups: tuple[Group, ...], masks: Mapping[str, Tensor] | None = None) -> Masks:
    """Masks for every group; those not named are all True.

    Args:
        groups: of the network.
        masks: some of them; copied.

    Returns:
        One mask a group, in order.

    Raises:
        SelectionError: a group that there is not, or a mask of another length or type; all that is wrong is
            listed.
    """
    given, sizes = dict(masks or {}), {group.name: group.size for group in groups}
    wrong = [no_group(name, sizes) for name in given if name not in sizes]
    for group in groups:
        mask = given.get(group.name)
        if mask is None:
            continue
        if not isinstance(mask, Tensor) or mask.shape != (group.size,) or mask.dtype != torch.bool:
            shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            kind = f" of {mask.dtype}" if isinstance(mask, Tensor) else ""
            wrong.append(
                f"the mask of {group.name!r} is {shape}{kind}: it must be ({group.size},) of torch.bool"
            )
    if wrong:
        raise SelectionError("These masks cannot be used: " + "; ".join(wrong) + ".")
    return {
        g.name: given[g.name].detach().cpu().clone()
        if g.name in given
        else torch.ones(g.size, dtype=torch.bool)
        for g in groups
    }


def floor(groups: tuple[Group, ...], slots: tuple[Slot, ...], scores: Scores, alive: Masks) -> Masks:
    """The best unit of every group, which has to stay for the network to be one.

    Where two groups own the same columns (filters and the features that they are flattened to), the later
    group's unit is the best of those that sit on what the earlier one keeps. Optional groups keep none.

    Args:
        groups: of the network.
        slots: where their units sit now.
        scores: of every group.
        alive: units that are still there.

    Returns:
        One mask a group.
    """
    kept: Masks = {}
    for group in groups:
        mask = torch.zeros(group.size, dtype=torch.bool)
        kept[group.name] = mask
        candidates = alive[group.name].clone()
        if group.optional or not bool(candidates.any()):
            continue
        slot = next((s for s in slots if s.group == group.name and s.reads), None)
        if slot is not None:
            open_units = _on_open_columns(slot, slots, kept, group.size) & candidates
            candidates = open_units if bool(open_units.any()) else candidates
        ranked = torch.where(candidates, scores[group.name].double(), -torch.inf)
        best = ranked.max()
        mask[(candidates & (ranked == best)).nonzero()[0]] = True
    return kept


def fed(groups: tuple[Group, ...], slots: tuple[Slot, ...], masks: Masks, alive: Masks, seed: int) -> Masks:
    """Masks in which no group starves because another one has lost all that it sits on.

    Groups that were drawn apart may miss each other: no feature of a kept filter is among the kept
    features. One that is, drawn by lot, is then added.

    Args:
        groups: of the network.
        slots: where their units sit now.
        masks: of every group, none of them empty.
        alive: units that are still there.
        seed: of the lot.
    """
    masks = {name: mask.clone() for name, mask in masks.items()}
    for number, group in enumerate(groups):
        slot = next((s for s in slots if s.group == group.name and s.reads), None)
        if slot is None or bool(close_over(slots, masks)[group.name].any()):
            continue
        others = {name: mask for name, mask in masks.items() if name != group.name}
        open_units = (_on_open_columns(slot, slots, others, group.size) & alive[group.name]).nonzero()
        if len(open_units):
            generator = torch.Generator().manual_seed(seed + number)
            masks[group.name][open_units[torch.randint(len(open_units), (1,), generator=generator)]] = True
    return masks


def _on_open_columns(slot: Slot, slots: tuple[Slot, ...], kept: Masks, size: int) -> Tensor:
    """(size,), the units with a column that all groups decided so far leave open."""
    open_columns = torch.ones(len(slot.unit_ids), dtype=torch.bool)
    for other in slots:
        if (other.tensor, other.dim) == (slot.tensor, slot.dim) and other.group in kept:
            if other.group == slot.group:
                continue
            there = torch.cat([kept[other.group], torch.ones(1, dtype=torch.bool)])
            open_columns &= there[other.unit_ids]
    units = torch.zeros(size, dtype=torch.bool)
    found = slot.unit_ids[open_columns]
    units[found[found >= 0]] = True
    return units
