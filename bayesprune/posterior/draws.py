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

from bayesprune.errors import PosteriorError
from bayesprune.gated import GatedModel
from bayesprune.priors.one_program import is_plate
from bayesprune.priors.protocol import member
from bayesprune.structure import Group


@dataclass(frozen=True)
class Draws:
    """Draws of gates and hyper-sites from a guide.

    Attributes:
        gates: (draws, units of all groups), int8, units by their number in the dense network.
        hyper: group → hyper-site → (draws, ...); the same memory for every draw where the guide is a point.
            A site that several groups name is there for the first of them.
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

    Gates are drawn in one go. A hyper-site is drawn in one go too where the guide
    has no other random site in that group, or in those that share sites with it, or is the default one, whose
    sites are independent; a user's own guide of several sites, which may depend on each other, is run draw by
    draw. Discrete sites that are summed out have no draws.

    Args:
        gated: a fitted model.
        draws: how many.

    Raises:
        PosteriorError: some gates are continuous, and not yet decided.
    """
    refuse_continuous(gated, "Draws in ArviZ's form")
    gates = gated.draw_gates(draws)
    log_q = gated.gates_log_prob(gates)
    hyper: dict[str, dict[str, Tensor]] = {group.name: {} for group in gated.groups}
    probs = gated.by_group(gated.inclusion_prob())
    for groups in gated.groups_together():
        values, score = _hyper_draws(gated, groups, probs, draws)
        for name, value in values.items():
            hyper[_first(gated, groups, name)][name] = value
        log_q += score
    return Draws(gates.to(torch.int8), hyper, log_q)


def refuse_continuous(gated: GatedModel, what: str) -> None:
    """Say that something is of masks, where gates are factors.

    Args:
        gated: the model.
        what: that.

    Raises:
        PosteriorError: a group's gates are continuous, and not yet decided.
    """
    for name in gated.continuous.live:
        prior = type(gated.continuous.priors[name]).__name__
        raise PosteriorError(
            f"{what} are of masks, of zeros and ones, and the gates of group {name!r} are factors under "
            f"{prior} that are not decided. Take the fit at its end, at='end' of one with decide=True; "
            "bp.predict(…), which averages over the factors; or gated.gate_guide(group), their distribution."
        )


def random_sites(trace: Any) -> dict[str, Any]:
    """The latent sample sites of a Pyro trace that are not points: name → site."""
    return {name: site for name, site in sample_sites(trace).items() if not _is_point(site["fn"])}


def sample_sites(trace: Any) -> dict[str, Any]:
    """All latent sample sites of a Pyro trace, without those of plates: name → site."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site["is_observed"] and not is_plate(site["fn"])
    }


def _is_point(fn: Any) -> bool:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return isinstance(fn, dist.Delta)


def _first(gated: GatedModel, groups: tuple[Group, ...], site: str) -> str:
    """The first of these groups whose prior names a site; the first of all where only its guide does."""
    named = gated.default_guide.by_group
    return next((group.name for group in groups if site in named[group.name]), groups[0].name)


def _hyper_draws(
    gated: GatedModel, groups: tuple[Group, ...], probs: dict[str, Tensor], draws: int
) -> tuple[dict[str, Tensor], Tensor]:
    def trace() -> Any:
        with poutine.block():
            return poutine.trace(gated.hyper_guides).get_trace(probs, groups)

    first = trace()
    own = any(hasattr(member(gated.prior, group), "guide") for group in groups)
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
        Group → (draws, size) int8 gates, and hyper-site → (draws, ...). Of continuous gates whether they are
        not zero; what their prior takes over from the guide has no draws.
    """
    gates, hyper = {}, {}
    for groups in gated.groups_together():
        with poutine.block():
            first = poutine.trace(gated.gate_priors).get_trace(groups)
        sites = random_sites(first)
        if len(sites) > 1 or len(groups) > 1:
            values, drawn = _prior_one_by_one(gated, groups, draws)
        elif sites:
            ((name, site),) = sites.items()
            values = {name: site["fn"].sample(torch.Size([draws]))}
            one = groups[0]
            drawn = {one.name: over_draws(lambda v, g=one: _gates_given(gated, g, v).sample(), values)}
        else:
            prior = _gates_of(first).given(groups[0].name, {})
            values, drawn = {}, {groups[0].name: prior.sample(torch.Size([draws]))}
        gates.update({name: z.to(torch.int8) for name, z in drawn.items()})
        hyper.update(values)
    for name, prior in gated.continuous.priors.items():
        named = gated.continuous.named[name]
        with poutine.block():
            gates[name] = torch.stack([prior.presence(named) for _ in range(draws)]).to(torch.int8)
    return {group.name: gates[group.name] for group in gated.groups}, hyper


def _gates_of(trace: Any) -> Any:
    return trace.nodes["_RETURN"]["value"]


def _gates_given(gated: GatedModel, group: Group, values: dict[str, Tensor]) -> Any:
    with poutine.block():
        return poutine.condition(gated.gate_prior, data=values)(group)


def _prior_one_by_one(
    gated: GatedModel, groups: tuple[Group, ...], draws: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    traces: list[Any] = []
    drawn: list[dict[str, Tensor]] = []
    for _ in range(draws):
        with poutine.block():
            traces.append(poutine.trace(gated.gate_priors).get_trace(groups))
        gates: dict[str, Tensor] = {}
        for group in groups:
            gates[group.name] = _gates_of(traces[-1]).given(group.name, gates).sample()
        drawn.append(gates)
    values = {
        n: torch.stack([torch.as_tensor(t.nodes[n]["value"]) for t in traces])
        for n in random_sites(traces[0])
    }
    return values, {group.name: torch.stack([z[group.name] for z in drawn]) for group in groups}


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
