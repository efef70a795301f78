"""Which units may be moved at the decision: each by itself, and pairs that say much the same."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesprune.gated import GatedModel
from bayesprune.priors import CostGates
from bayesprune.rows import Pair
from bayesprune.structure.graph.readings import unit_vectors
from bayesprune.svi.mask_evidence import affordable, tensors_of
from bayesprune.svi.settings import Moves

FEWEST_MASKS = 4
"""A pair has that many; where no more can be afforded, nothing is asked."""
MOST_ROWS = 2000
"""By which correlations are told."""


@dataclass(frozen=True)
class Twins:
    """Two units of a group that say much the same, by their places among the units of all groups."""

    group: str
    first: int
    second: int
    correlation: float


def most_masks(gated: GatedModel, rows: int, settings: Moves) -> int:
    """How many masks are asked at most: as many as were allowed, else what takes a matter of seconds."""
    return affordable(gated, rows) if settings.masks is None else settings.masks


def asked_at_all(gated: GatedModel, rows: int, settings: Moves) -> bool:
    """Whether there are weights to integrate out, and time for a few masks."""
    tensors = gated.weight_tensors()
    weights = sum(tensors[name].numel() for name in tensors_of(gated))
    return weights > 0 and most_masks(gated, rows, settings) >= FEWEST_MASKS


def singles(gated: GatedModel, rows: int, settings: Moves) -> list[int]:
    """Units that may be removed or added by themselves; none where there is no time to ask about them all.

    Sections whose price follows from cost have a factor of their own on it, and stay as they were decided.

    Args:
        gated: the model.
        rows: how many evidence is asked of.
        settings: whether single units are moved.

    Returns:
        Their places among the units of all groups; those whose gates are the least decided first.
    """
    if not settings.single or not asked_at_all(gated, rows, settings):
        return []
    free = _free(gated)
    for group in gated.groups:
        if group.optional and isinstance(gated.prior, CostGates):
            free[gated.slices()[group.name]] = False
    found = free.nonzero().squeeze(1).tolist()
    undecided = gated.log_odds.detach().abs().cpu()
    if len(found) >= most_masks(gated, rows, settings):
        return []
    return sorted(found, key=lambda unit: (float(undecided[unit]), unit))


def twins(gated: GatedModel, rows: Pair, settings: Moves) -> list[Twins]:
    """Pairs of correlated units whose readers' weights can be integrated out, the most alike first.

    Args:
        gated: the model.
        rows: (inputs, targets), training rows.
        settings: from which correlation on.
    """
    if not asked_at_all(gated, len(rows[0]), settings):
        return []
    alive, free, found = gated.by_group(gated.alive.cpu()), _free(gated), []
    vectors = unit_vectors(gated.network, alive, rows[0][:MOST_ROWS])
    for group, part in gated.slices().items():
        if group in vectors:
            units = part.start + free[part].nonzero().squeeze(1)
            alike = _correlations(vectors[group][units - part.start])
            for i, j in (alike.abs() >= settings.correlation).triu(1).nonzero().tolist():
                found.append(Twins(group, int(units[i]), int(units[j]), float(alike[i, j])))
    return sorted(found, key=lambda pair: (-abs(pair.correlation), pair.first, pair.second))


def _free(gated: GatedModel) -> Tensor:
    """(units of all groups,), bool: living units, not pinned, whose readers' weights are integrated out."""
    free, read = gated.alive.cpu().clone(), _read_by(gated, tensors_of(gated))
    for group, part in gated.slices().items():
        if group not in read:
            free[part] = False
    return free if gated.pinned is None else free & (gated.pinned.cpu() == 0)


def _read_by(gated: GatedModel, names: tuple[str, ...]) -> set[str]:
    """Groups whose units are read by these weights alone; all where these are all there are."""
    if len(names) == len(gated.weight_tensors()):
        return {group.name for group in gated.groups}
    readers: dict[str, set[str]] = {}
    for slot in gated.network.slots:
        if slot.reads:
            readers.setdefault(slot.group, set()).add(slot.tensor)
    return {group for group, tensors in readers.items() if tensors <= set(names)}


def _correlations(vectors: Tensor) -> Tensor:
    """(units, units), of what readers see of them; 0 for a unit that says always the same."""
    centred = vectors.double() - vectors.double().mean(1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    unit = torch.where(length > 1e-9 * vectors.double().norm(dim=1, keepdim=True), centred / length, 0.0)
    return unit @ unit.T
