"""How probable a mask can be at most, from the masks beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp
from torch import Tensor

from bayesprune.gated import GatedModel
from bayesprune.gated.dead import median_units
from bayesprune.posterior.diagnose.joint import log_joint
from bayesprune.posterior.integrate import integrate_weights
from bayesprune.posterior.rows import Rows
from bayesprune.svi.mask_evidence import affordable

MOST_NEIGHBOURS, MOST_ROW_PASSES = 500, 30_000
"""A bound from few neighbours is a bound, only not as tight; many rows leave time for fewer of them."""
MOST_INTEGRATED = 30
"""Neighbours whose weights are integrated out."""


def neighbours(gated: GatedModel, most: int = MOST_NEIGHBOURS) -> tuple[Tensor, Tensor]:
    """The hard mask, and masks that differ from it in one unit, or by a swap of two of a group.

    Args:
        gated: a fitted model; only units that are still there can be on.
        most: masks; the gates nearest to undecided are flipped first (others in random order), swaps last.

    Returns:
        (units,) int8, and (neighbours, units) int8.
    """
    hard = median_units(gated).cpu()
    living = gated.alive.cpu().nonzero().squeeze(1)
    living = living[torch.randperm(len(living), generator=torch.Generator().manual_seed(0))]  # breaks ties
    order = living[gated.log_odds.detach().cpu()[living].abs().argsort(stable=True)]
    changes: list[list[int]] = [[int(unit)] for unit in order[:most]]
    for part in gated.slices().values():
        inside = [int(u) for u in order if part.start <= int(u) < part.stop]
        off, on = [u for u in inside if not hard[u]], [u for u in inside if hard[u]]
        changes += [[a, b] for a in off for b in on][: max(0, most - len(changes))]
    masks = hard.repeat(len(changes), 1)
    for mask, units in zip(masks, changes, strict=True):
        mask[units] = ~mask[units]
    return hard.to(torch.int8), masks.to(torch.int8)


def highest_probability(log_mask: float, log_others: np.ndarray[Any, Any]) -> float:
    r"""An upper bound on the posterior probability of a mask, from any set of other masks S.

    .. math:: p(z^* \mid y) \le \frac{p(z^*, y)}{p(z^*, y) + \sum_{z \in S} p(z, y)}

    Args:
        log_mask: log p(z*, y), nats.
        log_others: (S,), log p(z, y), nats.
    """
    return float(np.exp(log_mask - logsumexp(np.append(log_others, log_mask))))


def certainty(gated: GatedModel) -> float:
    """q(z*), what the guide gives the hard mask."""
    theta = gated.inclusion_prob().detach().double().cpu()
    return float(torch.where(median_units(gated).cpu(), theta, 1 - theta).log().sum().exp())


def integrated_bound(gated: GatedModel, rows: Rows) -> float:
    """The same with the weights integrated out: they follow each mask, as far as there are few of them."""
    hard, others = neighbours(gated, min(MOST_INTEGRATED, affordable(gated, len(rows[0]))))
    scores = integrate_weights(gated, rows, torch.cat([hard[None], others])).log_joint
    return highest_probability(float(scores[0]), scores[1:])


def bound(gated: GatedModel, rows: Rows) -> float:
    """The highest probability that the posterior can give the hard mask, weights and removals as they are."""
    hard, others = neighbours(gated, min(MOST_NEIGHBOURS, max(8, MOST_ROW_PASSES // len(rows[0]))))
    scores = log_joint(gated, torch.cat([hard[None], others]), rows)
    return highest_probability(float(scores[0]), scores[1:])
