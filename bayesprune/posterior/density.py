"""Log-densities of all draws at once under prior and guide; Pyro's own traces are the specification."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from bayesprune.gated import GatedModel
from bayesprune.posterior.draws import Draws, over_draws
from bayesprune.structure import Group

NUMBERS_AT_ONCE = 8_000_000
"""Weights drawn at a time: 32 MB in single precision."""


def gates_and_hyper(gated: GatedModel, draws: Draws) -> Tensor:
    """Log p(gates, hyper-sites) of each draw.

    Args:
        gated: the model.
        draws: of its guide.

    Returns:
        (draws,), float64, nats.
    """
    total = torch.zeros(len(draws.gates), dtype=torch.double)
    if gated.continuous.priors:  # what kept units paid for factors that are now in the weights
        total -= float(gated.continuous.nats(gated.by_group(gated.alive)))
    by_group = gated.slices()
    for groups in gated.groups_together():
        gates = {g.name: draws.gates[:, by_group[g.name]].to(gated.log_odds) for g in groups}
        hyper = {name: value for g in groups for name, value in draws.hyper[g.name].items()}
        total += _together(gated, groups, gates, hyper).double().cpu()
    return total


def _together(
    gated: GatedModel, groups: tuple[Group, ...], gates: dict[str, Tensor], hyper: dict[str, Tensor]
) -> Tensor:
    def one(z: dict[str, Tensor], values: dict[str, Tensor]) -> Tensor:
        with poutine.block():
            program = poutine.condition(gated.gate_priors, data=values)
            trace: Any = poutine.trace(program).get_trace(groups)
        trace.compute_log_prob()
        score = trace.nodes["_RETURN"]["value"].log_prob(z)
        return torch.as_tensor(score + trace.log_prob_sum())

    points = {n: v for n, v in hyper.items() if v.stride(0) == 0 or v.numel() == v[:1].numel()}
    if len(points) < len(hyper):
        return over_draws(one, gates, hyper)
    fixed = {name: value[0] for name, value in points.items()}  # the same prior for all draws
    return over_draws(lambda z: one(z, fixed), gates)


def point_weights(gated: GatedModel) -> float:
    """Log-density of the weights that are points, what was removed at the prior's mode: nats."""
    total = 0.0
    for name, tensor in gated.weight_tensors().items():
        if name in gated.log_scales_by_tensor():
            continue
        scale = gated.weights.scale_of(name)
        total -= 0.5 * float(tensor.detach().double().square().sum()) / scale**2
        total -= gated.dense_numel[name] * (math.log(scale) + 0.5 * math.log(2 * math.pi))
    return total


def weight_draws(gated: GatedModel, draws: int) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    """Draw the weights that have a posterior, as many at a time as memory should hold.

    Args:
        gated: the model.
        draws: how many.

    Yields:
        Which draws these are, and tensor name → (those draws, ...).
    """
    scales, tensors = gated.log_scales_by_tensor(), gated.weight_tensors()
    numbers = sum(scale.numel() for scale in scales.values())
    size = max(1, NUMBERS_AT_ONCE // max(1, numbers))
    for start in range(0, draws, size):
        part = slice(start, min(draws, start + size))
        count = part.stop - part.start
        yield (
            part,
            {
                name: tensors[name] + scale.exp() * torch.randn(count, *scale.shape).to(scale)
                for name, scale in scales.items()
            },
        )


def weights_log_probs(gated: GatedModel, weights: dict[str, Tensor], gates: Tensor) -> tuple[Tensor, Tensor]:
    """Log p and log q of drawn weights; under spike-and-slab a closed unit's weights cost nothing.

    Args:
        gated: the model.
        weights: tensor name → (draws, ...).
        gates: (draws, units of all groups), drawn with them.

    Returns:
        (draws,) and (draws,), float64, nats.
    """
    log_p = torch.zeros(len(gates), dtype=torch.double)
    log_q = torch.zeros_like(log_p)
    scales, tensors = gated.log_scales_by_tensor(), gated.weight_tensors()
    open_units = {name: gates[:, part].to(gated.log_odds) for name, part in gated.slices().items()}
    for name, values in weights.items():
        slab = dist.Normal(values.new_zeros(()), gated.weight_scale(name)).log_prob(values)
        guide = dist.Normal(tensors[name], scales[name].exp()).log_prob(values)
        share = gated.weight_share(name, open_units)
        prior = slab if share is None else slab + (1 - share) * (guide - slab)
        log_p += prior.reshape(len(gates), -1).double().sum(-1).cpu()
        log_q += guide.reshape(len(gates), -1).double().sum(-1).cpu()
    return log_p, log_q
