"""Whole sections of trained networks: what each saves is measured, with it and without it.

A gate's evidence is a slope, and weights that have learnt beside an open gate have made it flat there: of the
three sections of a trained ResNet on 4,000 rows, which save 2,727 to 4,115 nats each, slopes at q(z = 1) =
0.99 see 175 to 283 (``python benchmarks/pretrained.py``). Units are many, and each changes little; sections
are few, and can be asked one by one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bayesprune.gated import GatedModel
from bayesprune.rows import Pair

SURELY = 2.0
"""Standard errors by which a gain is counted for more, as the rows of one batch say it no closer."""


def optional_units(gated: GatedModel) -> Tensor:
    """(units of all groups,), bool: whole sections."""
    parts = [torch.full((group.size,), group.optional) for group in gated.groups]
    return torch.cat(parts).to(gated.alive.device)


@torch.no_grad()
def exact_gains(gated: GatedModel, batch: Pair, open_units: Tensor) -> Tensor:
    """What every open section saves, as the network is: at the upper end of two standard errors.

    N · (E[ℓ without] − E[ℓ with] + 2 · sd(ℓ without − ℓ with) / √rows), all other gates as they stand.

    Args:
        gated: the model; its mode and statistics stay.
        batch: inputs (rows, ...) and targets.
        open_units: (units of all groups,), bool: whose gates are 1; those of the others are 0.

    Returns:
        (units of all groups,), nats; zero where there is no open section.
    """
    x, y = batch[0], gated.likelihood.taught(*batch)
    training = gated.training
    gated.eval()
    try:
        whole = _nll(gated, (x, y), open_units)
        gains = torch.zeros(len(open_units), dtype=torch.double, device=open_units.device)
        for unit in (optional_units(gated) & open_units & gated.alive).nonzero().flatten().tolist():
            without = open_units.clone()
            without[unit] = False
            more = (_nll(gated, (x, y), without) - whole).double().reshape(-1)
            error = more.std() / len(more) ** 0.5 if len(more) > 1 else 0.0
            gains[unit] = gated.likelihood.rows * (more.mean() + SURELY * error)
    finally:
        gated.train(training)
    return gains


def unpaid(gated: GatedModel, gains_of: Callable[[Tensor], Tensor], prices: Tensor) -> Tensor:
    """The sections whose gain is below their price, the one furthest below first, one after the other.

    Args:
        gated: the model.
        gains_of: what every section saves, given which units are open, as ``exact_gains`` says it.
        prices: (units of all groups,), nats.

    Returns:
        (units of all groups,), bool: once they are gone, every other section is worth its price.
    """
    left, sections = gated.alive.clone(), optional_units(gated)
    while bool((left & sections).any()):
        above = gains_of(left) - prices
        worst = int(torch.where(left & sections, above, torch.inf).argmin())
        if float(above[worst]) >= 0:
            break
        left[worst] = False
    return gated.alive & ~left


def _nll(gated: GatedModel, batch: Pair, open_units: Tensor) -> Tensor:
    """(rows,) or scalar, negative log-likelihood under these gates."""
    x, y = batch
    dtype = gated.log_odds.dtype
    masks, living = gated.by_group(open_units.to(dtype)), gated.by_group(gated.alive)
    for name, mean in gated.continuous.means().items():
        masks[name] = masks[name] * mean
    gates = {name: mask[living[name]].expand(len(x), -1) for name, mask in masks.items()}
    return gated.likelihood.nll(gated.network(x, gates), y)
