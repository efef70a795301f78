"""Draws of one fit's guide: all gates at once, and the hyper-sites of its prior."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from bayesprune.gated import GatedModel
from bayesprune.priors.default_guide import member
from bayesprune.structure import Group


@dataclass(frozen=True)
class Draws:
    """Draws of gates and hyper-sites from a guide.

    Attributes:
        gates: (draws, units of all groups), int8, units by their number in the dense network.
        hyper: group → hyper-site → (draws, ...); the same memory for every draw where the guide is a point.
        log_q: (draws,), float64, nats: log-density of both under the guide.
    """

    gates: Tensor
    hyper: dict[str, dict[str, Tensor]]
    log_q: Tensor


@contextmanager
def quiet(gated: GatedModel) -> Iterator[None]:
    """Without gradients, without noise on units, and without a trace in torch's random state."""
    was_training = gated.training
    gated.eval()  # noise on units is for training, and no parameter of the model
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            yield
    finally:
        gated.train(was_training)


def draw(gated: GatedModel, draws: int) -> Draws:
    """Draw from the guide, by torch's random state.

    Gates are drawn from their probabilities in one go. A hyper-site is drawn in one go too where the guide
    has no other random site in that group, or is the default one, whose sites are independent; a user's own
    guide of several sites, which may depend on each other, is run draw by draw.

    Args:
        gated: a fitted model.
        draws: how many.
    """
    theta = gated.inclusion_prob().detach().cpu()
    gates = torch.rand(draws, len(theta), dtype=theta.dtype) < theta
    log_q = gates_log_prob(gates, theta)
    hyper = {}
    for group, probs in zip(gated.groups, gated.by_group(gated.inclusion_prob()).values(), strict=True):
        hyper[group.name], score = _hyper_draws(gated, group, probs, draws)
        log_q += score
    return Draws(gates.to(torch.int8), hyper, log_q)


def gates_log_prob(gates: Tensor, theta: Tensor) -> Tensor:
    """Log-density of independent gates.

    Args:
        gates: (draws, units), zeros and ones.
        theta: (units,), probabilities of one.

    Returns:
        (draws,), float64, nats.
    """
    z, theta = gates.double(), theta.double()
    return (torch.xlogy(z, theta) + torch.xlogy(1 - z, 1 - theta)).sum(-1)


def random_sites(trace: Any) -> dict[str, Any]:
    """The sample sites of a Pyro trace that are not points: name → site."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not _is_point(site["fn"])
    }


def sample_sites(trace: Any) -> dict[str, Any]:
    """All latent sample sites of a Pyro trace: name → site."""
    return {n: s for n, s in trace.nodes.items() if s["type"] == "sample" and not s["is_observed"]}


def _is_point(fn: Any) -> bool:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return isinstance(fn, dist.Delta)


def _hyper_draws(
    gated: GatedModel, group: Group, probs: Tensor, draws: int
) -> tuple[dict[str, Tensor], Tensor]:
    def trace() -> Any:
        with poutine.block():
            return poutine.trace(gated.hyper_guide).get_trace(group, probs)

    first = trace()
    own = hasattr(member(gated.prior, group), "guide")
    if own and len(random_sites(first)) > 1:
        return _one_by_one(trace, draws)
    values, score = {}, torch.zeros(draws, dtype=torch.double)
    for name, site in sample_sites(first).items():
        if _is_point(site["fn"]):
            values[name] = site["value"].expand(draws, *site["value"].shape)
            score += site["fn"].log_prob(site["value"]).double().sum().cpu()
        else:
            values[name] = site["fn"].sample(torch.Size([draws]))
            score += site["fn"].log_prob(values[name]).reshape(draws, -1).double().sum(-1).cpu()
    return values, score


def _one_by_one(trace: Any, draws: int) -> tuple[dict[str, Tensor], Tensor]:
    traces = [trace() for _ in range(draws)]
    score = torch.stack([torch.as_tensor(t.log_prob_sum()).double().cpu() for t in traces])
    names = sample_sites(traces[0])
    return {n: torch.stack([torch.as_tensor(t.nodes[n]["value"]) for t in traces]) for n in names}, score


def draw_prior(gated: GatedModel, draws: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Draw gates and hyper-sites from the prior.

    Args:
        gated: the model; it is the dense network's prior, whatever was removed.
        draws: how many.

    Returns:
        Group → (draws, size) int8 gates, and hyper-site → (draws, ...).
    """
    gates, hyper = {}, {}
    for group in gated.groups:
        with poutine.block():
            first = poutine.trace(gated.gate_prior).get_trace(group)
        sites = random_sites(first)
        if len(sites) > 1:
            values, drawn = _prior_one_by_one(gated, group, draws)
        elif sites:
            ((name, site),) = sites.items()
            values = {name: site["fn"].sample(torch.Size([draws]))}
            drawn = over_draws(lambda v, g=group: _gates_given(gated, g, v).sample(), values)
        else:
            values, drawn = {}, _gates_of(first).sample(torch.Size([draws]))
        gates[group.name] = drawn.to(torch.int8)
        hyper.update(values)
    return gates, hyper


def _gates_of(trace: Any) -> Any:
    return trace.nodes["_RETURN"]["value"]


def _gates_given(gated: GatedModel, group: Group, values: dict[str, Tensor]) -> Any:
    with poutine.block():
        return poutine.condition(gated.gate_prior, data=values)(group)


def _prior_one_by_one(gated: GatedModel, group: Group, draws: int) -> tuple[dict[str, Tensor], Tensor]:
    traces, gates = [], []
    for _ in range(draws):
        with poutine.block():
            traces.append(poutine.trace(gated.gate_prior).get_trace(group))
        gates.append(_gates_of(traces[-1]).sample())
    names = random_sites(traces[0])
    return {
        n: torch.stack([torch.as_tensor(t.nodes[n]["value"]) for t in traces]) for n in names
    }, torch.stack(gates)


def over_draws(function: Any, *arguments: Any) -> Tensor:
    """A function of one draw, for all draws: vectorised, or one by one where its operations cannot be.

    A prior is a program of one draw, so batching it by broadcasting could silently go wrong
    (``rate.expand(size)`` on as many rates as there are units); ``vmap`` gives the program what it expects.

    Args:
        function: of one draw's arguments, to a tensor.
        arguments: tensors (draws, ...), or dictionaries of such.

    Returns:
        (draws, ...).
    """
    with pyro.validation_enabled(False):  # checks are data-dependent; the prior was checked by gate()
        try:
            vectorised = torch.vmap(function, randomness="different", chunk_size=256)
            return torch.as_tensor(vectorised(*arguments))
        except (RuntimeError, NotImplementedError):
            count = len(next(iter(_leaves(arguments))))
            return torch.stack([function(*[_at(a, i) for a in arguments]) for i in range(count)])


def _leaves(arguments: Any) -> Iterator[Tensor]:
    for argument in arguments:
        yield from argument.values() if isinstance(argument, dict) else [argument]


def _at(argument: Any, index: int) -> Any:
    return {k: v[index] for k, v in argument.items()} if isinstance(argument, dict) else argument[index]
