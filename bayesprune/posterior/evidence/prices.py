r"""What the prior charges for every unit: the line that its evidence has to pass.

.. math:: \mathrm{price}_u = P(\theta_{-u}, \theta_u = 1) - P(\theta_{-u}, \theta_u = 0),

with P the prior side of the negative ELBO as ``fit`` has it. For a flattening prior, and under a budget, it
is the price in nats (a budget's as it was when gates last moved). For a known rate λ it is −logit λ, and for
a shared rate log(b + K − 1 − S) − log(a + S), S the expected number of the group's K − 1 other units that are
on: the prior's log-odds against the unit. In each case the objective wants θ_u > ½ exactly where its gain is
more. A prior without a closed form has the mean of log p(z_u = 0 | …) − log p(z_u = 1 | …) over draws of its
hyper-sites from their guide. A spike-and-slab unit pays for its own weights too. Derived here, and tested.
A unit whose gate was continuous is charged what it paid for it when gates were decided, its own divergence in
nats: P is no function of θ there.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Bernoulli, Independent

from bayesprune.gated import GatedModel
from bayesprune.posterior.draws import random_sites
from bayesprune.priors import Gates
from bayesprune.priors.protocol import ClosedFormPrior, closed_form
from bayesprune.priors.summed import Block
from bayesprune.structure import Group
from bayesprune.svi.objective import weight_nats

DRAWS = 256
"""Of hyper-sites, for a prior that has no closed form."""


def unit_prices(gated: GatedModel, probs: Tensor) -> Tensor:
    """The price of every unit.

    Args:
        gated: the model.
        probs: (units of all groups,), where the other gates are; zeros for removed units.

    Returns:
        (units of all groups,), float64, nats, on the CPU; of no meaning for removed units.
    """
    parts, prices = gated.by_group(probs), {}
    for groups in gated.groups_together():
        with torch.no_grad():
            known = closed_form(gated.prior, groups[0])
            if known is not None and len(groups) == 1:
                alive = gated.by_group(gated.alive)[groups[0].name]
                prices[groups[0].name] = _by_penalty(known, groups[0], parts[groups[0].name], alive)
            else:
                prices.update(_by_draws(gated, groups, parts))
    prices.update(gated.continuous.prices(gated.by_group(gated.alive)))
    found = torch.cat([prices[group.name].double().cpu() for group in gated.groups])
    return found + _of_weights(gated, probs).cpu()


def _by_penalty(prior: ClosedFormPrior, group: Group, theta: Tensor, alive: Tensor) -> Tensor:
    """(group.size,), the difference of the penalty, unit by unit; NaN for removed ones."""
    theta, prices = theta.double(), torch.full((group.size,), torch.nan, dtype=torch.double)
    for unit in alive.nonzero().squeeze(1).tolist():
        on, off = theta.clone(), theta.clone()
        on[unit], off[unit] = 1.0, 0.0
        prices[unit] = prior.penalty(group, on) - prior.penalty(group, off)
    return prices


def _by_draws(gated: GatedModel, groups: tuple[Group, ...], probs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Group → (size,), mean log-odds against each unit over draws of hyper-sites and, if need be, gates."""
    total = {group.name: torch.zeros(group.size, dtype=torch.double) for group in groups}
    draws = 0
    while draws < DRAWS:
        with poutine.block():
            guide: Any = poutine.trace(gated.hyper_guides).get_trace(probs, groups)
            model: Any = poutine.trace(poutine.replay(gated.gate_priors, trace=guide)).get_trace(groups)
        priors, drawn = model.nodes["_RETURN"]["value"], bool(random_sites(guide))
        for name, gates in priors.plain.items():
            given = _logits(gates)
            drawn = drawn or given is None
            against = _against(gates, probs[name]) if given is None else -given
            total[name] += against.double().cpu()
        for block in priors.blocks:
            drawn = True
            for name, against in _against_block(block, probs).items():
                total[name] += against.double().cpu()
        draws += 1
        if not drawn:
            break
    return {name: prices / draws for name, prices in total.items()}


def _against_block(block: Block, probs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Group → (units,), as ``_against``, where discrete hyper-sites are summed out."""
    z = {name: (torch.rand_like(probs[name]) < probs[name]).to(probs[name].dtype) for name in block.groups}
    if block.independent:
        return {name: -gains[0] for name, gains in block.gains({n: v[None] for n, v in z.items()}).items()}
    return {name: _against(block.given(name, z), probs[name]) for name in block.groups}


def _logits(gates: Any) -> Tensor | None:
    """(units,), log-odds of gates that are independent given the hyper-sites; None of others."""
    if isinstance(gates, Independent):
        gates = gates.base_dist
    return gates.logits if isinstance(gates, Gates | Bernoulli) else None


def _against(gates: Any, theta: Tensor) -> Tensor:
    """(units,), log p(z with u off) − log p(z with u on), the other gates drawn."""
    drawn = (torch.rand_like(theta) < theta).to(theta.dtype)
    units = torch.arange(len(theta))
    on, off = drawn.repeat(len(theta), 1), drawn.repeat(len(theta), 1)
    on[units, units], off[units, units] = 1.0, 0.0
    difference: Tensor = gates.log_prob(off) - gates.log_prob(on)
    return difference


def _of_weights(gated: GatedModel, probs: Tensor) -> Tensor:
    """(units of all groups,), nats of a spike-and-slab unit's own weights; zeros under other priors.

    The divergence is linear in each θ_u, so that its slope is the difference between the ends.
    """
    if not (gated.weights.masked and gated.log_scales):
        return torch.zeros(len(probs), dtype=torch.double)
    theta = probs.detach().clone().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(weight_nats(gated, theta), theta)
    return slope.double()
