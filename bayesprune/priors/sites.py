"""The sites of a prior and of its guide, looked at once, by ``gate``: what cannot be meant is refused."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from bayesprune.errors import BayespruneError, PriorError
from bayesprune.priors.one_program import OneProgram, StoredParameters, is_plate
from bayesprune.priors.protocol import closed_form, member
from bayesprune.priors.summed import Choices, leaves_of
from bayesprune.structure.groups import Group

RUNS = 3
"""Of a program, to see what stays the same from run to run."""
RESERVED = ("gate/", "weight/", "noise/", "removed/", "closed/", "param/")
RESERVED_NAMES = ("rows", "y", "weights")


@dataclass(frozen=True)
class Sites:
    """What a prior's program names.

    Attributes:
        by_group: group → names of its hyper-sites.
        shared: those that several groups name.
        normal: hyper-site → its site in one run, and the groups that name it: what the default guide samples.
        summed: discrete hyper-sites that no guide samples.
    """

    by_group: Mapping[str, frozenset[str]]
    shared: frozenset[str]
    normal: Mapping[str, tuple[Any, tuple[str, ...]]]
    summed: frozenset[str]


@dataclass(frozen=True)
class _Seen:
    """One site in one run of one group's program."""

    group: str
    run: int
    leaf: int
    site: Any


def looked_at(prior: Any, groups: Sequence[Group], stored: StoredParameters, dtype: torch.dtype) -> Sites:
    """Run a prior and its guide a few times, and find out what their sites are.

    Args:
        prior: the prior program.
        groups: that it is asked about.
        stored: takes up what ``pyro.param`` asks for.
        dtype: of inclusion probabilities.

    Raises:
        PriorError: the program fails, or its sites cannot be meant: one name for different distributions, a
            support that depends on other sites, a name that the model has for itself, a guide that misses a
            site or has one too many, a guide that cannot be learnt.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad(), poutine.block():
        _first_run(prior, groups, stored)
        guided = _guide_sites(prior, groups, stored, dtype)
        seen = [entry for run in range(RUNS) for entry in _record(prior, groups, stored, set(guided), run)]
    by_name: dict[str, list[_Seen]] = {}
    for entry in seen:
        by_name.setdefault(entry.site["name"], []).append(entry)
    summed = set()
    for name, entries in by_name.items():
        _check_name(name)
        fn, named = entries[0].site["fn"], len({entry.group for entry in entries}) > 1
        is_summed = _is_discrete(fn) and not entries[0].site["is_observed"] and name not in guided
        if is_summed:
            summed.add(name)
        if named or not is_summed:
            _check_same(name, entries)
        if _is_known(entries[0].site):
            _check_every_leaf(name, entries, seen)
        if named:
            _check_open(prior, groups, name, entries)
    latent = {name: e for name, e in by_name.items() if not _is_known(e[0].site)}
    _check_guide(prior, groups, latent, guided, summed)
    normal = {}
    for name, entries in latent.items():
        if name in summed or name in guided:
            continue
        _check_support(name, entries)
        normal[name] = entries[0].site, tuple(dict.fromkeys(entry.group for entry in entries))
    by_group = {
        g.name: frozenset(n for n, e in by_name.items() if any(s.group == g.name for s in e)) for g in groups
    }
    shared = frozenset(n for n, e in by_name.items() if len({s.group for s in e}) > 1)
    return Sites(by_group, shared, normal, frozenset(summed))


# ---- running


def _first_run(prior: Any, groups: Sequence[Group], stored: StoredParameters) -> None:
    """See that the program runs at all, and which parameters it asks for."""
    with OneProgram(stored) as program:
        for group in groups:
            program.begin()
            _run("prior", group, partial(prior, group))


def _run(what: str, group: Group, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except (BayespruneError, NotImplementedError):
        raise
    except Exception as problem:  # whatever a user's program does
        takes = "group, and returns a distribution over its gates"
        if what != "prior":
            takes = "group and q(z = 1) of its gates, and samples the prior's hyper-sites"
        raise PriorError(
            f"The {what} fails for group {group.name!r}: {type(problem).__name__}: {problem}. It is "
            f"called with the {takes}."
        ) from problem


class _Recorder(OneProgram):
    """One program, of which every naming of a site is written down."""

    def __init__(self, stored: StoredParameters, guided: set[str] | None, run: int) -> None:
        super().__init__(stored)
        self.found: list[_Seen] = []
        self.group, self.leaf, self.run, self.guided = "", 0, run, guided

    def __enter__(self) -> _Recorder:
        super().__enter__()
        return self

    def begin(self, prefix: tuple[int, ...] = ()) -> Choices:
        self.leaf += 1
        return super().begin(prefix)

    def _pyro_sample(self, msg: Any) -> None:
        if not is_plate(msg["fn"]):
            name = msg["name"]
            if name in self._here:
                raise PriorError(
                    f"The prior, or its guide, samples site {name!r} twice for group {self.group!r}: give "
                    "each a name of its own."
                )
            summed = self.guided is not None and name not in self.guided
            if summed and _is_discrete(msg["fn"]) and not msg["is_observed"]:
                self.summed = self.summed | {name}
        super()._pyro_sample(msg)
        if not is_plate(msg["fn"]):
            self.found.append(_Seen(self.group, self.run, self.leaf, msg))


def _record(
    prior: Any, groups: Sequence[Group], stored: StoredParameters, guided: set[str], run: int
) -> list[_Seen]:
    with _Recorder(stored, guided, run) as program:
        for group in groups:
            program.group = group.name
            leaves_of(group, program.begin, lambda g: _run("prior", g, lambda: prior(g)))
    return program.found


def _guide_sites(
    prior: Any, groups: Sequence[Group], stored: StoredParameters, dtype: torch.dtype
) -> dict[str, Any]:
    """Site → what the prior's own guides sample it from."""
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad(), _Recorder(stored, None, 0) as program:
        for group in groups:
            own = member(prior, group)
            if not hasattr(own, "guide"):
                continue
            program.group = group.name
            program.begin()
            share = torch.rand(group.size, generator=generator, dtype=dtype).requires_grad_()
            _run("prior's guide", group, partial(own.guide, group, share))
    found: dict[str, _Seen] = {}
    for entry in program.found:
        name = entry.site["name"]
        if entry.site["infer"].get("is_auxiliary"):
            continue
        first = found.setdefault(name, entry)
        if not _same(first.site, entry.site):
            raise PriorError(
                f"The prior's guide samples {name!r} from one distribution for group {first.group!r} and "
                f"from another for group {entry.group!r}, and it is one site of the whole program: let its "
                "distribution be the same for all groups, as one of parameters is, or leave the guide out."
            )
    return {name: entry.site for name, entry in found.items()}


# ---- what cannot be meant


def _check_name(name: str) -> None:
    if name in RESERVED_NAMES or name.startswith(RESERVED):
        raise PriorError(
            f"The prior names a site {name!r}, and the model has sites of its own that are called so (y, "
            f"rows, {', '.join(f'{start}…' for start in RESERVED)}): give it another name, such as 'rate/…'."
        )


def _check_same(name: str, entries: list[_Seen]) -> None:
    """A site has one distribution, whichever group names it, and whatever is summed out."""
    for run in range(RUNS):
        of_run = [entry for entry in entries if entry.run == run]
        for other in of_run[1:]:
            first = of_run[0]
            if _same(first.site, other.site):
                continue
            kinds = f"({_told(first.site)}) and another for group {other.group!r} ({_told(other.site)})"
            if first.group != other.group:
                raise PriorError(
                    f"Site {name!r} of the prior means one thing for group {first.group!r} {kinds}, and is "
                    "one site of the whole program: give it the same distribution for all groups, or a name "
                    f"for each, f'{name}/{{group.name}}'."
                )
            raise PriorError(
                f"The distribution of site {name!r} of the prior, for group {first.group!r}, depends on a "
                "discrete hyper-site, which is summed out: sample what does not depend on it, and put them "
                "together afterwards (offset = sample(Normal(0, 1)); value = center[k] + scale[k] * offset)."
            )


def _check_every_leaf(name: str, entries: list[_Seen], seen: list[_Seen]) -> None:
    """What is observed, or a factor, is scored whatever the discrete sites are."""
    groups = {entry.group for entry in entries}
    runs = {(entry.run, entry.leaf) for entry in seen if entry.group in groups}
    if len(runs) > len({(entry.run, entry.leaf) for entry in entries}):
        raise PriorError(
            f"Site {name!r} of the prior, which is observed or a factor, is there in some runs for group "
            f"{entries[0].group!r} and not in others: let it be there in each, a factor of zero where it "
            "should not count."
        )


def _same(one: Any, other: Any) -> bool:
    a, b = one["fn"], other["fn"]
    if type(a) is not type(b) or a.shape() != b.shape() or one["is_observed"] != other["is_observed"]:
        return False
    if one["is_observed"] and not _equal(one["value"], other["value"]):
        return False
    if _is_discrete(a) and not one["is_observed"] and a.has_enumerate_support:
        places = a.enumerate_support(expand=False)
        others = b.enumerate_support(expand=False)
        return _equal(places, others) and _equal(a.log_prob(places), b.log_prob(places))
    value = one["value"]
    return bool(value is None) or _equal(a.log_prob(value), b.log_prob(value))


def _equal(a: Any, b: Any) -> bool:
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-7, equal_nan=True)


def _told(site: Any) -> str:
    fn = site["fn"]
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    values = [
        f"{n}={_number(fn.__dict__[n])}" for n in getattr(fn, "arg_constraints", {}) if n in fn.__dict__
    ]
    return f"{type(fn).__name__}({', '.join(values)})"


def _number(value: Any) -> str:
    return f"{float(value):g}" if isinstance(value, Tensor) and value.numel() == 1 else "…"


def _check_open(prior: Any, groups: Sequence[Group], name: str, entries: list[_Seen]) -> None:
    """Who knows its penalty counts its hyper-sites in it, once for each group."""
    named = {entry.group for entry in entries}
    closed = [g.name for g in groups if g.name in named and closed_form(prior, g) is not None]
    if closed and not _is_known(entries[0].site):
        raise PriorError(
            f"Groups {', '.join(map(repr, sorted(named)))} share the hyper-site {name!r}, and the prior of "
            f"{closed[0]!r} has a penalty, which counts that site for each group again: leave penalty out, "
            f"so that the program is run, or give each group its own site, f'{name}/{{group.name}}'."
        )


def _check_support(name: str, entries: list[_Seen]) -> None:
    fn = entries[0].site["fn"]
    if any(not _alike(fn.support, entry.site["fn"].support) for entry in entries[1:]):
        raise PriorError(
            f"The support of hyper-site {name!r} of the prior, {_told(entries[0].site)}, depends on other "
            "sites or on chance, and the guide that is made for it has one: sample it where nothing moves, "
            "and carry it over (share = sample(Uniform(0, 1)); value = top * share), or give the prior a "
            "method guide(group, inclusion_prob)."
        )
    if any(entry.site["fn"].shape() != fn.shape() for entry in entries[1:]):
        raise PriorError(
            f"Hyper-site {name!r} of the prior has another shape in another run: let it have one, or give "
            "the prior a method guide(group, inclusion_prob)."
        )
    runs = {entry.run for entry in entries}
    if len(runs) < RUNS:
        raise PriorError(
            f"Hyper-site {name!r} of the prior is there in some runs and not in others: sample it in each, "
            "and leave it unread where it is of no use."
        )


def _alike(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if not hasattr(a, "__dict__"):
        return bool(a == b)
    if vars(a).keys() != vars(b).keys():
        return False
    for key, value in vars(a).items():
        other = vars(b)[key]
        if isinstance(value, dist.constraints.Constraint):
            if not _alike(value, other):
                return False
        elif isinstance(value, Tensor | float | int):
            if not _equal(value, other):
                return False
        elif isinstance(value, list | tuple) and not (
            len(value) == len(other) and all(map(_alike, value, other))
        ):
            return False
    return True


def _check_guide(
    prior: Any,
    groups: Sequence[Group],
    latent: Mapping[str, list[_Seen]],
    guided: Mapping[str, Any],
    summed: set[str],
) -> None:
    own = {group.name for group in groups if hasattr(member(prior, group), "guide")}
    missing = {
        name: entries[0].group
        for name, entries in latent.items()
        if name not in guided and name not in summed and all(entry.group in own for entry in entries)
    }
    extra = [name for name, site in guided.items() if name not in latent and not _is_known(site)]
    if missing:
        name, group = next(iter(missing.items()))
        near = difflib.get_close_matches(name, extra, 1, 0.3)
        told = f" (it samples {near[0]!r}, which the prior does not)" if near else ""
        raise PriorError(
            f"The prior's guide for group {group!r} does not sample hyper-site {name!r}{told}: sample it "
            "under that name, or leave the guide out, so that one is made."
        )
    if extra:
        raise PriorError(
            f"The prior's guide samples {', '.join(map(repr, extra))}, which the prior does not: it has "
            f"{', '.join(map(repr, latent)) or 'no hyper-sites'}. Sample them in the prior, or mark them "
            "infer={'is_auxiliary': True}."
        )
    for name, site in guided.items():
        fn = site["fn"]
        if name not in latent:
            continue
        asked = latent[name][0].site["fn"]
        if fn.event_shape != asked.event_shape or fn.batch_shape != asked.batch_shape:
            raise PriorError(
                f"The prior's guide samples {name!r} of batch and event shape {tuple(fn.batch_shape)}, "
                f"{tuple(fn.event_shape)}, and the prior of {tuple(asked.batch_shape)}, "
                f"{tuple(asked.event_shape)}: let them be equal."
            )
        if not fn.has_rsample and fn.log_prob(site["value"]).requires_grad:
            leave = (
                "leave it out of the guide, so that it is summed out"
                if _is_discrete(asked)
                else "take a distribution with rsample"
            )
            raise PriorError(
                f"The prior's guide samples {name!r} from a distribution without rsample "
                f"({type(fn).__name__}) that has something to learn, and its gradient would lack the score "
                f"function's term: {leave}, or detach() what it depends on."
            )


def _is_discrete(fn: Any) -> bool:
    try:
        return bool(fn.support.is_discrete)
    except (AttributeError, NotImplementedError):
        return False


def _is_known(site: Any) -> bool:
    """Whether a site is observed, a factor, or a point: nothing to have a guide for."""
    fn = site["fn"]
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return bool(site["is_observed"]) or isinstance(fn, dist.Delta)
