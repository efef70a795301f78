"""What the weights could still gain: a few steps at full rates, on rows and judged on others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bayesprune.gated import GatedModel
from bayesprune.gated.dead import median_units
from bayesprune.posterior.arviz import unwrap, wrap
from bayesprune.posterior.draws import quiet
from bayesprune.posterior.rows import Rows
from bayesprune.rows import Inputs
from bayesprune.structure.copying import copy_of

GAIN = "gain_of_steps"
"""Name among what is constant in the draws of a fit, where it was asked."""

STEPS, RATES = 20, (1e-3, 1e-2)
"""Of Adam: 20 steps at a rate of 0.01 move a weight by up to 0.2."""
MOST_ROWS, MASKS = 1000, 4


def gain_of_steps(gated: GatedModel, rows: Rows, seed: int = 0) -> float:
    r"""Largest gain of the weights' objective within 20 steps of Adam, at rates of 0.001 and 0.01.

    .. math:: \frac{1}{n} \sum_n \mathrm{nll}_n + \frac{1}{N} \sum_w \frac{w^2}{2 s_w^2}

    The steps go by one half of the rows and the gain is measured on the other half: where the weights are at
    their optimum for all rows, steps that follow some of them lose on the others, so that no noise is taken
    for a gain. Gates are held at the hard mask where they are decided, else at four drawn masks; weights that
    have a posterior are moved at their means.

    Args:
        gated: a fitted model; a copy is moved.
        rows: (inputs, targets); a thousand of them at most are looked at, drawn at random.
        seed: of that draw, and of the masks.

    Returns:
        Nats a row; below zero where every step lost.
    """
    generator = torch.Generator().manual_seed(seed)
    device = gated.log_odds.device
    some = torch.randperm(len(rows[0]), generator=generator)[:MOST_ROWS]
    x, y = rows[0][some].to(device), rows[1][some].to(device)
    y = gated.likelihood.taught(x, y)
    odd, even = torch.arange(0, len(some), 2), torch.arange(1, len(some), 2)
    masks = _masks(gated, generator)
    best = -torch.inf
    for rate in RATES:
        with quiet(gated):
            moved = copy_of(gated).eval().requires_grad_(False)
        weights = [w.requires_grad_(True) for w in moved.weight_tensors().values()]
        adam = torch.optim.Adam(weights, lr=rate)
        with torch.no_grad():
            before = float(_objective(moved, x[even], y[even], masks))
        for _ in range(STEPS):
            adam.zero_grad()
            with torch.enable_grad():
                _objective(moved, x[odd], y[odd], masks).backward()
            adam.step()
            with torch.no_grad():
                best = max(best, before - float(_objective(moved, x[even], y[even], masks)))
    return best


def with_gain(draws: Any, gated: GatedModel, rows: Rows) -> Any:
    """Draws of one fit that know what its weights could still gain, for whoever has these draws alone.

    Args:
        draws: of ``to_arviz``.
        gated: the fitted model.
        rows: (inputs, targets), training rows.

    Returns:
        A container like ``draws``.
    """
    groups = dict(unwrap(draws))
    about = {"units": "nats a row", "description": "of 20 steps of Adam at full rates, on training rows"}
    gain = ("chain", [gain_of_steps(gated, rows)], about)
    groups["constant_data"] = groups["constant_data"].assign({GAIN: gain})
    return wrap(groups)


def _masks(gated: GatedModel, generator: torch.Generator) -> list[Tensor]:
    theta = gated.inclusion_prob().detach().cpu().double()
    if bool(((theta < 0.01) | (theta > 0.99)).all()):
        return [median_units(gated).to(gated.log_odds)]
    return list(gated.draw_gates(MASKS, generator).to(gated.log_odds))


def _objective(gated: GatedModel, x: Inputs, y: Tensor, masks: list[Tensor]) -> Tensor:
    tensors = gated.weight_tensors()
    prior = sum((w / gated.weight_scale(n)).square().sum() / 2 for n, w in tensors.items())
    nll = [gated.likelihood.nll(gated.outputs(x, gated.by_group(mask)), y).mean() for mask in masks]
    return torch.stack(nll).mean() + prior / gated.likelihood.rows
