"""Structured paths: units are removed physically, in the order of a rule, by magnitude or by a posterior."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bayesprune.certify.paths.protocol import Candidate
from bayesprune.errors import CertificateError
from bayesprune.gated import GatedModel
from bayesprune.rows import Inputs
from bayesprune.selection import Magnitude, Masks, Rule, Scored, Scores, Subject
from bayesprune.selection.family import Family, check_scope, largest
from bayesprune.svi import FitResult

STEPS = 50
WHOLE: dict[str, Any] = {"kind": "reference"}


@dataclass(frozen=True)
class Units:
    """Whole units go, those first that a rule of ``bayesprune.selection`` holds least of.

    Candidates have rising shares of the parameters removed, from none to all but one unit in every group;
    sizes at which the rule's masks are the same are one candidate.

    Args:
        rule: which units stay at a given size: by default those of large weights. Rules of a posterior
            (inclusion probability, evidence against price) need ``fit``.
        fit: the result of the fit whose posterior orders the units, and whose network the path begins with.
        shares: of the reference's parameters to keep, falling, in (0, 1]; by default 50, each the same
            fraction of the one before.
        scope: ``"global"`` or ``"layer"``; by default the rule's own.
        exclude: groups that stay whole.
        seed: of random rules.

    Example:
        >>> network = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))
        >>> path = Units(shares=[1.0, 0.5]).candidates(network, torch.zeros(1, 6))
        >>> [candidate.name for candidate in path], path[1].build()[0].out_features
        (['kept 0: 20', 'kept 0: 9'], 9)
    """

    rule: Rule = field(default_factory=Magnitude)
    fit: FitResult | GatedModel | None = None
    shares: Sequence[float] | None = None
    scope: Any = None
    exclude: tuple[str, ...] = ()
    seed: int = 0

    @property
    def name(self) -> str:
        """How the certificate calls it."""
        source = "the posterior's" if self.fit is not None else "the network's"
        return f"{source} units by {self.rule.name}"

    def candidates(self, reference: nn.Module, example: Inputs) -> Sequence[Candidate]:
        """The networks, smaller and smaller; the first is the reference itself.

        Args:
            reference: left alone.
            example: (rows, ...), inputs that it accepts.

        Raises:
            SelectionError: a rule that does not fit.
            UnsupportedNetworkError: the network cannot be traced.
            NothingToGateError: it has no unit to remove.
        """
        own = self.fit is None
        if self.rule.edges:
            raise CertificateError(
                f"{self.rule.name} chooses single weights, and Units removes whole units: take Weights() for "
                "the smallest weights, or give networks of bayesprune.selection.path(...)."
            )
        subject = Subject.of(reference if self.fit is None else self.fit, example, self.exclude)
        check_scope(self.scope or self.rule.scope)
        family = self.rule.family(subject, self.scope or self.rule.scope, self.seed)
        first, recipe = (partial(subject.cut, subject.alive), {}) if self.fit else (lambda: reference, WHOLE)
        found = [Candidate(_units(subject.alive), first, recipe)]
        for masks in self._masks(subject, family):
            recipe = {"kind": "units", "exclude": list(self.exclude), "kept": _to_hex(masks)} if own else {}
            found.append(Candidate(_units(masks), partial(subject.cut, masks), recipe))
        return found

    def _masks(self, subject: Subject, family: Family) -> Iterator[Masks]:
        """Masks that differ from those before."""
        whole, before = subject.parameters(subject.alive), _to_hex(subject.alive)
        for share in self._falling(subject.parameters(family.at(0)) / whole):
            masks = largest(family, subject.parameters, round(share * whole))
            if masks is None:
                return
            masks = subject.closed(masks)
            if _to_hex(masks) != before:
                before = _to_hex(masks)
                yield masks

    def _falling(self, least: float) -> list[float]:
        if self.shares is None:
            return [least ** (step / (STEPS - 1)) for step in range(1, STEPS)]
        shares = list(self.shares)
        if (
            not shares
            or any(not 0.0 < s <= 1.0 for s in shares)
            or shares != sorted(set(shares), reverse=True)
        ):
            raise CertificateError(f"Units(shares={shares!r}): they must fall, from 1 to above 0.")
        return shares


@dataclass(frozen=True)
class Given(Scored):
    """Units in the order of scores that were computed elsewhere, as evidence above price.

    Args:
        table: group → (size,), the higher, the longer a unit stays; groups not named stay whole.
        called: what they are.
    """

    table: Mapping[str, Tensor]
    called: str
    scope = "global"

    @property
    def name(self) -> str:
        """How tables call it."""
        return self.called

    def scores(self, subject: Subject, seed: int = 0) -> Scores:
        """The table, restricted to the groups that there are."""
        names = {group.name for group in subject.groups}
        return {name: score for name, score in self.table.items() if name in names}


def cut_again(reference: nn.Module, example: Inputs, recipes: Iterable[dict[str, Any]]) -> list[Candidate]:
    """The candidates of a path again, from what a certificate says of them.

    Args:
        reference: the network that was pruned.
        example: inputs that it accepts.
        recipes: of candidates of ``Units`` without a fit.

    Raises:
        CertificateError: masks that are none of this network's.
    """
    subjects: dict[tuple[str, ...], Subject] = {}
    found = []
    for recipe in recipes:
        if recipe["kind"] == "reference":
            found.append(Candidate("reference", lambda: reference, recipe))
            continue
        exclude = tuple(recipe["exclude"])
        if exclude not in subjects:
            subjects[exclude] = Subject.of(reference, example, exclude)
        subject = subjects[exclude]
        sizes = {group.name: group.size for group in subject.groups}
        if set(sizes) != set(recipe["kept"]):
            raise CertificateError(
                f"The certificate's path is over the groups {sorted(recipe['kept'])}, and this network has "
                f"{sorted(sizes)}: it is another network."
            )
        masks = {name: _from_hex(recipe["kept"][name], size) for name, size in sizes.items()}
        found.append(Candidate(_units(masks), partial(subject.cut, masks), recipe))
    return found


def _units(masks: Masks) -> str:
    return "kept " + ", ".join(f"{name}: {int(mask.sum())}" for name, mask in masks.items())


def _to_hex(masks: Masks) -> dict[str, str]:
    """group → its mask as a number in hexadecimal digits, unit 0 being the last bit."""
    return {n: f"{sum(1 << i for i, kept in enumerate(m.tolist()) if kept):x}" for n, m in masks.items()}


def _from_hex(digits: str, size: int) -> Tensor:
    number = int(digits, 16)
    return torch.tensor([bool(number >> unit & 1) for unit in range(size)])
