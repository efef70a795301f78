"""Which units are dead, and the guards that keep a group from being emptied by accident."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from bayesprune.errors import EmptyGroupWarning
from bayesprune.gated import GatedModel
from bayesprune.structure.groups import close_over
from bayesprune.svi.settings import Shrink


def dead_units(gated: GatedModel, settings: Shrink, velocity: Tensor, below: float | None = None) -> Tensor:
    """Units to remove now.

    A unit is dead when its inclusion probability is under the threshold and its evidence still points down
    (velocity > 0: keeping it costs more nats than it saves). Guards: a group keeps its ``least`` most probable units;
    and a removal that would starve a group through another one (all features of all filters) is put off.

    Args:
        gated: the model.
        settings: threshold and guard.
        velocity: (units of all groups,), smoothed gradient of the log-odds, nats.
        below: another threshold: at the decision it is one half, whichever way the evidence points.

    Returns:
        (units of all groups,), bool.

    Warns:
        EmptyGroupWarning: the prior wants all units of a group gone; it is named.
    """
    probs = gated.inclusion_prob().detach()
    dead = gated.alive & (probs < (settings.below if below is None else below))
    if below is None:
        dead &= velocity > 0
    for name, part in gated.slices().items():
        alive = gated.alive[part]
        left = int((alive & ~dead[part]).sum())
        if left < min(settings.least, int(alive.sum())):
            best = torch.where(alive, probs[part], -1.0).topk(min(settings.least, int(alive.sum()))).indices
            dead[part] = dead[part].index_fill(0, best, False)
            _warn(name, gated, probs[part], settings.least)
    return _unless_starved(gated, dead, probs)


def _unless_starved(gated: GatedModel, dead: Tensor, probs: Tensor) -> Tensor:
    """Put off the deaths of groups that closing over readers would empty, and of those that share columns with them."""
    for _ in gated.groups:
        alive = close_over(gated.network.slots, {n: m.cpu() for n, m in gated.by_group(gated.alive & ~dead).items()})
        empty = {name for name, mask in alive.items() if not bool(mask.any())}
        if not empty:
            return dead
        shared = {(s.tensor, s.dim) for s in gated.network.slots if s.group in empty and s.reads}
        for name in {s.group for s in gated.network.slots if (s.tensor, s.dim) in shared}:
            dead = dead.clone()
            dead[gated.slices()[name]] = False
            _warn(name, gated, probs[gated.slices()[name]], 1)
    return dead


def _warn(group: str, gated: GatedModel, probs: Tensor, least: int) -> None:
    warnings.warn(
        f"Group {group!r}: the prior wants all of its units gone (largest inclusion probability {float(probs.max()):.3g} "
        f"after {int((~gated.alive[gated.slices()[group]]).sum())} of {len(probs)} were removed). Kept the {least} most "
        f"probable: a layer without units would be no network. Lower the price of {group!r}, or list it in exclude=.",
        EmptyGroupWarning,
        stacklevel=2,
    )
