"""What a gated model predicts, as a mean over draws of its guide: for a network that learns from it."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from bayesprune.errors import SettingsError
from bayesprune.gated.network import GatedNetwork
from bayesprune.likelihoods import Member
from bayesprune.ranges import SEED_RULE, SEEDS, is_seed, is_whole
from bayesprune.rows import Inputs


def members_of(gated: GatedNetwork, draws: int, seed: int) -> tuple[Member, ...]:
    """Draws of masks and weights, once; what is drawn several times is one member of as large a share.

    Args:
        gated: the model; it is read when the members are asked, and should not be moved before.
        draws: how many, at least 1.
        seed: of the draws.

    Raises:
        SettingsError: ``draws`` or ``seed`` is no such number.
    """
    if not is_whole(draws) or draws < 1:
        raise SettingsError(f"as_teacher: draws={draws!r} must be a whole number, at least 1.")
    if not is_seed(seed):
        raise SettingsError(f"as_teacher: seed={seed!r} {SEED_RULE}.")
    masks = gated.draw_gates(draws, torch.Generator().manual_seed(seed))
    if gated.log_scales_by_tensor():
        seeds = [(seed * draws + number) % SEEDS for number in range(draws)]
        return tuple(_member(gated, mask, 1 / draws, own) for mask, own in zip(masks, seeds, strict=True))
    distinct, counts = torch.unique(masks, dim=0, return_counts=True)
    return tuple(_member(gated, m, int(c) / draws) for m, c in zip(distinct, counts, strict=True))


def _member(gated: GatedNetwork, mask: Tensor, share: float, seed: int | None = None) -> Member:
    more = f"{mask.nonzero().flatten().tolist()} {seed}"
    return Member(share, partial(_outputs, gated, mask, seed), gated, more)


def _outputs(gated: GatedNetwork, mask: Tensor, seed: int | None, x: Inputs) -> Tensor:
    """(rows, outputs) under one mask, and one draw of the weights that have a posterior."""
    gates = gated.by_group(mask.to(gated.log_odds))
    return gated.outputs(x, gates, None if seed is None else _weights(gated, seed))


def _weights(gated: GatedNetwork, seed: int) -> dict[str, Tensor]:
    """A draw, from its seed every time: draws of a large network would not fit into memory together."""
    tensors, found = gated.weight_tensors(), {}
    generator = torch.Generator(gated.log_odds.device).manual_seed(seed)
    for name, log_scale in gated.log_scales_by_tensor().items():
        noise = torch.empty_like(log_scale).normal_(generator=generator)
        found[name] = tensors[name] + log_scale.exp() * noise
    return found
