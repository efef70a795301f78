"""The negative ELBO in nats: what the priors of gates and weights contribute, exactly where that is known.

−ELBO = N · E_q[mean NLL of a row] + KL-like terms of the gates with their hyper-sites + those of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor

from bayesprune.gated import GatedModel
from bayesprune.gated.meant import ships
from bayesprune.priors import Gates, LinkedGates
from bayesprune.priors.gates import configurations
from bayesprune.priors.protocol import closed_form
from bayesprune.structure import Group

SCORE_DRAWS = 16
LINKED_ENUMERATED = 10
"""Linked gates of so few are summed over, on the prior's side."""
LINKED_DRAWS = 32
"""Of linked gates, for the prior's side: no network is run for them."""


def gate_nats(gated: GatedModel, inclusion_prob: Tensor) -> Tensor:
    """E_q[log q(gates, hyper) − log p(gates, hyper)] over all groups.

    Closed form where the prior knows its own (``penalty``); else one draw of the hyper-sites from their
    guide, and the exact KL of the gates given them where Pyro knows one. What several groups share is drawn
    and counted once; discrete hyper-sites that no guide samples are summed out. Continuous gates add the
    weighted divergence of their own guide, and once they are decided what the kept units paid just before.

    Args:
        gated: the model.
        inclusion_prob: (units of all groups,), q(z = 1), zero for removed units.

    Returns:
        Scalar, nats, differentiable in ``inclusion_prob`` and in the hyper-guide's parameters.
    """
    parts, nats, program = gated.by_group(inclusion_prob), [], []
    for group in gated.switches:
        known, links = closed_form(gated.prior, group), gated.links_of(group.name)
        if known is None or (links is not None and not ships(known)):
            program.append(group)
            continue
        nats.append(known.penalty(group, parts[group.name]))
        if links is not None:  # log p of what ships is linear in gates: their probabilities are all it sees
            nats.append(total_correlation(links.gates(parts[group.name])))
    if program:
        nats.append(_program_nats(gated, program, parts))
    if gated.continuous.priors:
        nats.append(gated.continuous.nats(gated.by_group(gated.alive)))
    return torch.stack(nats).sum()


def _program_nats(gated: GatedModel, groups: Sequence[Group], probs: Mapping[str, Tensor]) -> Tensor:
    """The same of groups whose prior is a plain program, all in one trace: what they share counts once."""
    with poutine.block():
        guide = poutine.trace(gated.hyper_guides).get_trace(probs, groups)
        model = poutine.trace(poutine.replay(gated.gate_priors, trace=guide)).get_trace(groups)
        guide.compute_log_prob()
        model.compute_log_prob()
    priors: Any = model.nodes["_RETURN"]["value"]
    nats = guide.log_prob_sum() - model.log_prob_sum()
    for name, gates in priors.plain.items():
        links = gated.links_of(name)
        if links is None:
            nats = nats + gate_divergence(probs[name], gates)
        else:
            nats = nats + linked_divergence(links.gates(probs[name]), gates, links.prior_slope)
    for block in priors.blocks:
        if any(gated.links_of(name) is not None for name in block.groups):
            guides = {name: gated.gate_guide(name, probs[name]) for name in block.groups}
            found = {name: gated.links_of(name) for name in block.groups}
            slopes = {name: links.prior_slope for name, links in found.items() if links is not None}
            nats = nats + _scored(guides, block.log_prob, slopes)
        else:
            nats = nats + block.divergence(probs)
    return torch.as_tensor(nats)


def gate_divergence(probs: Tensor, prior: TorchDistribution) -> Tensor:
    """KL(Bernoulli(probs) ‖ prior), exact where registered, else by score function with a baseline.

    Args:
        probs: (units,), q(z = 1).
        prior: any distribution over {0,1}^units.

    Returns:
        Scalar, nats.
    """
    posterior = Gates(probs=probs)
    try:
        return torch.distributions.kl_divergence(posterior, prior)
    except NotImplementedError:
        gates = Gates(probs=probs.detach()).sample(torch.Size([SCORE_DRAWS]))
        scores = prior.log_prob(gates)  # (draws,)
        baseline = (scores.sum() - scores) / (SCORE_DRAWS - 1)
        log_q = posterior.log_prob(gates)
        surrogate = scores + (scores - baseline).detach() * (log_q - log_q.detach())
        return -posterior.entropy() - surrogate.mean()


def linked_divergence(posterior: LinkedGates, prior: TorchDistribution, slope: Tensor) -> Tensor:
    """KL(linked gates ‖ prior), unbiased as its slopes are, by draws.

    Args:
        posterior: q, event shape (units,).
        prior: any distribution over {0,1}^units.
        slope: (units,), a guess of the slopes in q(z = 1), which takes variance out and adds no bias.

    Returns:
        Scalar, nats, differentiable in the posterior's and the prior's parameters.
    """
    try:
        independent = torch.distributions.kl_divergence(Gates(probs=posterior.probs), prior)
    except NotImplementedError:
        return _scored({"": posterior}, lambda gates: prior.log_prob(gates[""]), {"": slope})
    return independent + total_correlation(posterior)


def total_correlation(posterior: LinkedGates) -> Tensor:
    """KL(linked gates ‖ independent ones of the same probabilities), nats: what holding correlation costs.

    By draws, unbiased as its slopes are: those in the probabilities go by the score too, for the independent
    gates' own are zero on average.

    Args:
        posterior: q, event shape (units,).
    """
    alone = Gates(probs=posterior.probs.detach(), validate_args=False)
    return _scored({"": posterior}, lambda gates: alone.log_prob(gates[""]), {})


def _scored(
    guides: Mapping[str, Gates | LinkedGates],
    log_p: Callable[[Mapping[str, Tensor]], Tensor],
    slopes: Mapping[str, Tensor],
) -> Tensor:
    """E_q[log q − log p], over all masks of a few gates, else by draws: slopes by score, each draw against
    the others, less a control variate.

    Probabilities of linked gates are exact, so that E[a · (z − θ)] = 0 for any a: it is taken from every
    draw, and what it takes from the slopes is given back.

    Args:
        guides: group → q of its gates.
        log_p: (draws,) of gates (draws, units), by group.
        slopes: group → (units,), a; zero for groups not named.
    """
    sizes = [guide.event_shape[0] for guide in guides.values()]
    if sum(sizes) <= LINKED_ENUMERATED:
        whole = configurations(sum(sizes), torch.Size(), next(iter(guides.values())).probs)
        every = dict(zip(guides, whole.split(sizes, -1), strict=True))
        with (
            torch.no_grad()
        ):  # where a unit is gone half of the masks cannot be, and their logs have no slope
            can_be = torch.stack([g.log_prob(every[n]) for n, g in guides.items()]).sum(0) > -torch.inf
        masks = {name: of[can_be] for name, of in every.items()}
        log_q = torch.stack([guide.log_prob(masks[name]) for name, guide in guides.items()]).sum(0)
        return (log_q.exp() * (log_q - log_p(masks))).sum()
    with torch.no_grad():
        gates = {name: guide.sample(torch.Size([LINKED_DRAWS])) for name, guide in guides.items()}
    log_q = torch.stack([guide.log_prob(gates[name]) for name, guide in guides.items()]).sum(0)
    scores = log_p(gates)
    value, given_back = (log_q - scores).detach(), log_q.new_zeros(())
    for name, slope in slopes.items():
        theta = guides[name].probs
        value = value - (gates[name] - theta.detach()) @ slope
        given_back = given_back + (theta - theta.detach()) @ slope
    baseline = (value.sum() - value) / (LINKED_DRAWS - 1)
    by_score = ((value - baseline) * (log_q - log_q.detach())).mean()
    of_prior = scores - scores.detach()  # what the prior learns by
    return value.mean() + by_score + given_back - of_prior.mean()


def weight_nats(gated: GatedModel, inclusion_prob: Tensor) -> Tensor:
    """E_q[log q(weights) − log p(weights)]; for points −log p, counting what was removed at the prior's mode.

    Args:
        gated: the model.
        inclusion_prob: (units of all groups,), q(z = 1): spike-and-slab weights count with their unit's.

    Returns:
        Scalar, nats, differentiable in the weights, in their scales and in ``inclusion_prob``.
    """
    scales = gated.log_scales_by_tensor()
    total = inclusion_prob.new_zeros(())
    for name, tensor in gated.weight_tensors().items():
        if name not in scales:
            scale = gated.weights.scale_of(name)
            constant = gated.dense_numel[name] * (math.log(scale) + 0.5 * math.log(2 * math.pi))
            total = total + constant + 0.5 * tensor.to(total.dtype).square().sum() / scale**2
            continue
        total = (
            total
            + (
                weight_divergence(tensor, scales[name], gated.weight_scale(name))
                * row_share(gated, name, inclusion_prob)
            ).sum()
        )
    return total


def weight_divergence(loc: Tensor, log_scale: Tensor, prior_scale: Tensor | float) -> Tensor:
    """KL(N(loc, scale²) ‖ N(0, prior_scale²)), entry by entry.

    Args:
        loc: (...), posterior means.
        log_scale: (...), log posterior standard deviations.
        prior_scale: standard deviation of the prior: one, or (...).

    Returns:
        (...), nats.
    """
    if loc.dtype in (torch.bfloat16, torch.float16):
        loc, log_scale = loc.float(), log_scale.float()
    second_moment = loc.square() + (2 * log_scale).exp()
    log_prior = prior_scale.log() if isinstance(prior_scale, Tensor) else math.log(prior_scale)
    return log_prior - log_scale + 0.5 * second_moment / prior_scale**2 - 0.5


def row_share(gated: GatedModel, tensor: str, inclusion_prob: Tensor) -> Tensor:
    """How much each number of a weight counts: q(z = 1) of its units under spike-and-slab, else one.

    Args:
        gated: the model.
        tensor: name of the weight or bias.
        inclusion_prob: (units of all groups,), q(z = 1).

    Returns:
        Broadcastable against the tensor.
    """
    share = gated.weight_share(tensor, gated.by_group(inclusion_prob))
    return inclusion_prob.new_ones(()) if share is None else share


def prior_nats(gated: GatedModel) -> list[float]:
    """The priors' value at two places, by which another prior, price or weight scale is told apart."""
    places = [torch.full_like(gated.log_odds.data, share) for share in (0.5, 0.9)]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):  # some priors draw: the training must not notice
        torch.manual_seed(0)
        weights = float(weight_nats(gated, places[0]))
        return [weights, *(float(gate_nats(gated, probs)) for probs in places)]


def exact_negative_elbo(gated: GatedModel, x: Tensor, y: Tensor) -> Tensor:
    """−ELBO with the expectation over at most a dozen living gates enumerated; weights as points.

    Args:
        gated: the model.
        x: (rows, ...), inputs.
        y: their targets.

    Returns:
        Scalar, nats, differentiable in everything: the reference that steps are tested against.
    """
    from bayesprune.svi.estimators import all_configurations

    probs = gated.inclusion_prob()
    living = probs[gated.alive]
    configurations = all_configurations(len(living)).to(living)
    full = probs.new_zeros(len(configurations), 1, len(probs))
    full[:, 0, gated.alive] = configurations
    outputs = gated.outputs(x, {name: full[..., part] for name, part in gated.slices().items()})
    nll = gated.likelihood.nll(outputs, gated.likelihood.taught(x, y)).mean(-1)  # (2^K,)
    with torch.no_grad():
        masks = full.squeeze(1)
    log_q = torch.stack([gated.gate_guide(n).log_prob(masks[:, part]) for n, part in gated.slices().items()])
    share = log_q.sum(0).exp()
    return gated.likelihood.rows * (share @ nll) + gate_nats(gated, probs) + weight_nats(gated, probs)
