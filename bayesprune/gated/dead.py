"""Which units are dead, and the guards that keep a group from being emptied by accident."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from bayesprune.errors import EmptyGroupWarning
from bayesprune.gated.network import GatedNetwork
from bayesprune.structure.groups import close_over, least_units


def dead_units(gated: GatedNetwork, below: float, velocity: Tensor | None = None, least: int = 1) -> Tensor:
    """Units to remove now.

    A unit is dead when its inclusion probability is under the threshold and its evidence still points down
    (velocity > 0: keeping it costs more nats than it saves). Guards: a group keeps its ``least`` most
    probable units, counted after those have gone too that nobody would read any more (filters without
    features). Units with continuous gates die by their own rule.

    Args:
        gated: the model.
        below: the threshold; at the decision it is one half.
        velocity: (units of all groups,), smoothed gradient of the log-odds, nats; None where it is not asked
            which way the evidence points.
        least: units that a group keeps.

    Returns:
        (units of all groups,), bool.

    Warns:
        EmptyGroupWarning: the prior wants all units of a group gone; it is named.
    """
    probs = gated.inclusion_prob().detach()
    dead = gated.alive & (probs < below)
    if velocity is not None:
        dead &= velocity > 0
    rule = gated.by_rule(below)
    if rule is not None:
        dead = torch.where(rule[0], gated.alive & rule[1], dead)
    floors = _floors(gated, dead, least)
    for name, part in gated.slices().items():
        alive = gated.alive[part]
        if int((alive & ~dead[part]).sum()) < floors[name]:
            best = torch.where(alive, probs[part], -1.0).topk(floors[name]).indices
            dead[part] = dead[part].index_fill(0, best, False)
            _warn(name, gated, least)
    return _unless_starved(gated, dead, probs, least)


def median_units(gated: GatedNetwork) -> Tensor:
    """The median-probability model: the units that ``prune`` keeps.

    They are those of q(z = 1) ≥ ½, and of a group that would be emptied its most probable one; whatever is
    said of "the hard mask" is said of this one.

    Args:
        gated: the model.

    Returns:
        (units of all groups,), bool.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyGroupWarning)  # where it is pruned, it is told
        return gated.alive & ~dead_units(gated, 0.5)


def _floors(gated: GatedNetwork, dead: Tensor, least: int) -> dict[str, int]:
    """Group → units that it must keep if the optional ones among the dead go."""
    optional = {group.name for group in gated.groups if group.optional}
    dying = gated.by_group(dead)
    alive = {
        name: (mask & ~dying[name] if name in optional else mask).cpu()
        for name, mask in gated.by_group(gated.alive).items()
    }
    return least_units(gated.groups, gated.network.slots, alive, least)


def _unless_starved(gated: GatedNetwork, dead: Tensor, probs: Tensor, least: int) -> Tensor:
    """Spare the best columns of groups that closing over readers would leave with too few units."""
    dead, floors = dead.clone(), _floors(gated, dead, least)
    for _ in gated.groups:
        staying = {name: mask.cpu() for name, mask in gated.by_group(gated.alive & ~dead).items()}
        closed = close_over(gated.network.slots, staying)
        starved = [name for name, mask in closed.items() if int(mask.sum()) < floors[name]]
        if not starved:
            break
        for name in starved:
            _spare_(gated, dead, probs.cpu(), name, least)
            _warn(name, gated, least)
    return dead


def _spare_(gated: GatedNetwork, dead: Tensor, probs: Tensor, group: str, least: int) -> None:
    """Let units of a group live, each with the most probable of the columns that others own too."""
    slots, parts = gated.network.slots, gated.slices()
    slot = next(s for s in slots if s.group == group and s.reads)
    owners = [s for s in slots if (s.tensor, s.dim) == (slot.tensor, slot.dim)]
    shares = [torch.cat([probs[parts[s.group]], probs.new_ones(1)])[s.unit_ids] for s in owners]
    chances = torch.stack(shares).prod(0)  # (columns,)
    spared: set[int] = set()
    for column in chances.argsort(descending=True, stable=True).tolist():
        unit = int(slot.unit_ids[column])
        if len(spared) < least and unit not in spared and unit >= 0:
            spared.add(unit)
            for owner in owners:
                if int(owner.unit_ids[column]) < 0:
                    continue
                dead[parts[owner.group].start + int(owner.unit_ids[column])] = False


def _warn(group: str, gated: GatedNetwork, least: int) -> None:
    """The same words every time, so that Python says them once."""
    size = next(g.size for g in gated.groups if g.name == group)
    warnings.warn(
        f"Group {group!r}: the prior wants all of its {size} units gone. Kept the {least} most probable: a "
        f"layer without units would be no network. Lower the price of {group!r}, or list it in exclude=.",
        EmptyGroupWarning,
        stacklevel=2,
    )
