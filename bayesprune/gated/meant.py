"""Whether what a prior returns can be meant: its distributions, gates that are certain, its penalty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints, kl_divergence

from bayesprune.errors import PriorError
from bayesprune.priors import Gates
from bayesprune.priors.gates import MOST_ENUMERABLE_UNITS, configurations
from bayesprune.priors.one_program import is_plate
from bayesprune.priors.program import GatePriors
from bayesprune.priors.protocol import closed_form, member
from bayesprune.priors.summed import stacked
from bayesprune.structure import Group

PINNED = 1000.0
"""Log-odds whose sigmoid is exactly 0 or 1, in every type."""
RUNS = 3
MASKS = 64
DRAWS = (64, 512)
"""Of hyper-sites, for the penalty; more where it looks wrong by the fewer."""
SIGMAS = 6.0
CLOSE = 1e-3
"""Of one nat and of the value: what rounding may take."""


class Programmed(Protocol):
    """A model whose prior is run as one program: see ``GatedModel``."""

    prior: Any
    log_odds: Any

    def gate_priors(self, groups: Sequence[Group] | None = None) -> GatePriors:
        """Distributions of the gates of these groups."""
        ...

    def hyper_guides(self, inclusion_prob: Mapping[str, Tensor], groups: Sequence[Group]) -> None:
        """Sample their hyper-sites."""
        ...


def pins_of(gated: Programmed, groups: Sequence[Group]) -> Tensor:
    """Look at what the prior returns for these groups, which share hyper-sites, with these from their guide.

    Args:
        gated: the model.
        groups: the groups.

    Returns:
        (units of these groups,), ``PINNED`` where a gate has probability one in every run, minus that where
        it has none; zeros elsewhere.

    Raises:
        PriorError: a distribution is not over {0, 1}; or masks have probability zero that are no matter of
            single gates, so that no independent gates can be a posterior.
    """
    pins: dict[str, Tensor] = {}
    if all(ships(member(gated.prior, group)) for group in groups):
        return torch.zeros(sum(group.size for group in groups))
    for _ in range(RUNS):
        priors = _replayed(gated, groups, _shares(gated, groups))
        for group in groups:
            found = _certain(group, _parts(priors, group))
            pins[group.name] = found if group.name not in pins else (pins[group.name] + found) / 2
        certain = {name: torch.where(pin.abs() == PINNED, pin, 0.0) for name, pin in pins.items()}
        _check_possible(gated, groups, priors, certain)
        pins = certain
    return torch.cat([pins[group.name] for group in groups])


def check_penalty(gated: Programmed, group: Group) -> None:
    """Compare a user's ``penalty`` with his program: E_q[log q − log p], at two places.

    Its gates are summed out exactly where Pyro knows a divergence or there are at most 12, else over 4,096
    draws; its hyper-sites over 64 draws, and over 512 if these say no. A right one is refused where both
    means are off by more than six of their standard errors.

    Args:
        gated: the model.
        group: the group.

    Raises:
        PriorError: they differ.
    """
    known = closed_form(gated.prior, group)
    if known is None or ships(known):
        return
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        theta = 0.1 + 0.8 * torch.rand(group.size, generator=generator, dtype=gated.log_odds.dtype)
        said = float(known.penalty(group, theta))
        for draws in DRAWS:
            mean, error = _program_nats(gated, group, theta, draws)
            if abs(said - mean) <= SIGMAS * error + CLOSE * (1 + abs(mean)):
                break
        else:
            raise PriorError(
                f"The penalty of the prior for group {group.name!r} is not that of its program: at random "
                f"inclusion probabilities it is {said:.4g} nats, and E_q[log q(gates, hyper) − log p(gates, "
                f"hyper)] of the program, under its guide, is {mean:.4g} ± {error:.2g}. Mind its sign, and "
                "every constant; or leave penalty out, so that the program is run."
            )


def _shares(gated: Programmed, groups: Sequence[Group]) -> dict[str, Tensor]:
    return {g.name: torch.full((g.size,), 0.5, dtype=gated.log_odds.dtype) for g in groups}


def _replayed(gated: Programmed, groups: Sequence[Group], theta: Mapping[str, Tensor]) -> GatePriors:
    guide = poutine.trace(gated.hyper_guides).get_trace(theta, groups)
    priors: GatePriors = poutine.replay(gated.gate_priors, trace=guide)(groups)
    return priors


def _parts(priors: GatePriors, group: Group) -> Sequence[Any]:
    """What the program returned for a group, once for each value of what is summed out."""
    if group.name in priors.plain:
        return [priors.plain[group.name]]
    return next(b for b in priors.blocks if group.name in b.groups).given(group.name, {}).parts


def _certain(group: Group, parts: Sequence[Any]) -> Tensor:
    """(size,), ± ``PINNED`` where a gate is certain under all parts."""
    for gates in parts:
        if not _over_gates(gates):
            raise PriorError(
                f"The prior returned {_name(gates)} for group {group.name!r}, which is no distribution over "
                "{0, 1}: gates are on or off. Return bp.priors.Gates(probs=…), a Bernoulli, or a "
                "distribution of your own whose support is constraints.independent(constraints.boolean, 1)."
            )
    whole = stacked(parts)
    if whole is not None:
        if not bool(whole.probs.isfinite().all()):
            raise PriorError(
                f"The prior gives a gate of group {group.name!r} a probability that is no number: "
                f"{whole.probs.tolist()}."
            )
        shut, open_ = (where.all(0) for where in whole.impossible())
    elif group.size <= MOST_ENUMERABLE_UNITS:
        masks = configurations(group.size, torch.Size(), torch.zeros(()))
        possible = torch.stack([gates.log_prob(masks) > -torch.inf for gates in parts]).any(0)
        shut, open_ = ((masks[possible] == value).all(0) for value in (0.0, 1.0))
    else:
        return torch.zeros(group.size)
    return PINNED * (open_.float() - shut.float())


def _check_possible(
    gated: Programmed, groups: Sequence[Group], priors: GatePriors, pins: Mapping[str, Tensor]
) -> None:
    """All masks that independent gates can be, given those that are certain, have a probability."""
    generator = torch.Generator().manual_seed(2)
    masks = {}
    for group in groups:
        drawn = (torch.rand(MASKS, group.size, generator=generator) < 0.5).to(gated.log_odds.dtype)
        drawn[0], drawn[1] = 0.0, 1.0
        pin = pins[group.name]
        drawn[:, pin > 0], drawn[:, pin < 0] = 1.0, 0.0
        masks[group.name] = drawn
    scores = priors.log_prob(masks)
    if not bool(scores.isfinite().all()):
        names = ", ".join(repr(group.name) for group in groups)
        what = "a log-probability that is no number" if bool(scores.isnan().any()) else "probability zero"
        raise PriorError(
            f"The prior gives {what} to masks of group {names}, not for the sake of single gates that are "
            "always shut or always open, nor in every run: independent gates, which the posterior has, can "
            "not keep to that. Give such masks a small probability instead."
        )


def _over_gates(gates: Any) -> bool:
    try:
        support = gates.support
    except (AttributeError, NotImplementedError):
        return False
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if isinstance(support, type(constraints.integer_interval(0, 1))):
        low, high = torch.as_tensor(support.lower_bound), torch.as_tensor(support.upper_bound)
        return bool((low == 0).all() and (high == 1).all())
    return isinstance(support, type(constraints.boolean))


def _name(gates: Any) -> str:
    while hasattr(gates, "base_dist"):
        gates = gates.base_dist
    return type(gates).__name__


def ships(prior: Any) -> bool:
    """Whether a prior is one of the library's, with a hyper-prior of the library's, which tests hold."""
    parts = [part for part in (prior, getattr(prior, "hyper", None)) if part is not None]
    return bool(parts) and all(type(part).__module__.startswith("bayesprune.") for part in parts)


def _program_nats(gated: Programmed, group: Group, theta: Tensor, draws: int) -> tuple[float, float]:
    """Mean and standard error of log q − log p over draws of the hyper-sites, gates summed out."""
    values, gates_error = [], 0.0
    for _ in range(draws):
        guide = poutine.trace(gated.hyper_guides).get_trace({group.name: theta}, [group])
        model: Any = poutine.trace(poutine.replay(gated.gate_priors, trace=guide)).get_trace([group])
        prior = model.nodes["_RETURN"]["value"].given(group.name, {})
        nats, gates_error = _divergence(theta, prior)
        values.append(float(guide.log_prob_sum() - model.log_prob_sum()) + nats)
        if not _random(guide):
            return values[0], gates_error
    found = torch.tensor(values, dtype=torch.double)
    return float(found.mean()), float(found.std()) / draws**0.5 + gates_error


def _divergence(theta: Tensor, prior: Any) -> tuple[float, float]:
    """KL(Bernoulli(theta) ‖ prior) and its standard error."""
    posterior = Gates(probs=theta)
    try:
        return float(kl_divergence(posterior, prior)), 0.0
    except NotImplementedError:
        pass
    if len(theta) <= MOST_ENUMERABLE_UNITS:
        masks = configurations(len(theta), torch.Size(), theta)
        log_q = posterior.log_prob(masks)
        return float((log_q.exp() * (log_q - prior.log_prob(masks))).sum()), 0.0
    scores = prior.log_prob(posterior.sample(torch.Size([4096]))).double()
    return float(-posterior.entropy() - scores.mean()), float(scores.std()) / 4096**0.5


def _random(trace: Any) -> bool:
    for site in trace.nodes.values():
        if site["type"] != "sample" or site["is_observed"] or is_plate(site["fn"]):
            continue
        fn = site["fn"]
        while hasattr(fn, "base_dist"):
            fn = fn.base_dist
        if not isinstance(fn, dist.Delta):
            return True
    return False
