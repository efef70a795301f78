"""select, prune and path: any rule, any network, at a given size."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from bayesprune.errors import SelectionError, TiesWarning
from bayesprune.ranges import check_seed
from bayesprune.selection.family import Family, check_scope, drawn, largest
from bayesprune.selection.fuse import Fuse
from bayesprune.selection.masks import Masks
from bayesprune.selection.rule import Rule, Scope
from bayesprune.selection.subject import Prunable, Subject


@dataclass(frozen=True, eq=False)
class Candidate:
    """A pruned network on a path.

    Attributes:
        network: plain PyTorch.
        masks: group → (size,) bool, the units that stay; of a rule over edges tensor → (its shape) bool.
        parameters: that it has; weights that masks set to zero are not counted.
        share: of the dense network's parameters.
        rule: name of what chose it.
    """

    network: nn.Module = field(repr=False)
    masks: Masks = field(repr=False)
    parameters: int
    share: float
    rule: str


def select(
    rule: Rule,
    subject: Subject,
    share: float | None = None,
    parameters: int | None = None,
    scope: Scope | None = None,
    seed: int = 0,
) -> Masks:
    """Which units a rule keeps; of a rule over edges, which weights.

    Args:
        rule: any.
        subject: what is pruned.
        share: of the dense network's parameters, in (0, 1]: the largest network of the rule's family that is
            not above it.
        parameters: the same as a number. Without either, a rule with an answer of its own gives it.
        scope: ``"global"`` or ``"layer"``; by default the rule's.
        seed: of random rules.

    Returns:
        group → (size,) bool; tensor → (its shape) bool.

    Raises:
        SelectionError: both sizes, or none for a rule that has only an order; a size that is out of range, or
            below the smallest network's.
    """
    check_rule(rule)
    if not isinstance(subject, Subject):
        raise SelectionError(
            f"select looks at a Subject and got a {type(subject).__name__}: make one, "
            "bp.selection.Subject.of(network, example)."
        )
    check_seed(seed, SelectionError)
    check_scope(scope or rule.scope)
    if share is None and parameters is None:
        own = rule.masks(subject, seed)
        return own if rule.edges else subject.closed(own)
    family = rule.family(subject, scope or rule.scope, seed)
    return _within(rule, subject, family, _budget(subject, share, parameters))


def check_rule(rule: Any) -> None:
    """A rule must be one, made already.

    Raises:
        SelectionError: it is something else; a class of rules, for one.
    """
    if isinstance(rule, type) or not callable(getattr(rule, "family", None)):
        called = f": call it, {rule.__name__}(...)" if isinstance(rule, type) else ""
        raise SelectionError(f"rule={rule!r} is none{called}: give one such as bp.selection.Magnitude().")


def _within(rule: Rule, subject: Subject, family: Family, budget: int) -> Masks:
    """The largest of a rule's masks that is not above a budget."""
    size = subject.edge_parameters if rule.edges else subject.parameters
    masks = drawn(family, budget) if family.parameters else largest(family, size, budget)
    if masks is None:
        least, dense = size(family.at(0)), subject.dense_parameters
        what = "without any weight there" if rule.edges else "with one unit in every group there"
        raise SelectionError(
            f"{rule.name}: a budget of {budget:,} parameters ({budget / dense:.2%}) is out of reach, for "
            f"{what} are {least:,} ({least / dense:.2%}): ask for more."
        )
    ties = 0 if family.ties is None else family.ties(masks)
    if ties:
        warnings.warn(
            f"{rule.name}: {ties} units are equally probable, and {budget:,} parameters do not hold them all:"
            " those of low numbers stay. FlatteningVertex(rows, targets) orders them by their evidence.",
            TiesWarning,
            stacklevel=3,
        )
    return masks if rule.edges else subject.closed(masks)


def _budget(subject: Subject, share: float | None, parameters: int | None) -> int:
    if share is not None and parameters is not None:
        raise SelectionError(f"share={share!r} and parameters={parameters!r}: give one of them.")
    if share is not None:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise SelectionError(f"share={share!r}: a share of the dense network's parameters, in (0, 1].")
        return math.floor(share * subject.dense_parameters)
    if isinstance(parameters, bool) or not isinstance(parameters, int) or parameters < 1:
        raise SelectionError(f"parameters={parameters!r}: a whole number, at least 1.")
    return parameters


def prune(
    what: Prunable | Subject,
    keep: Mapping[str, Tensor],
    example: Tensor | None = None,
    exclude: Iterable[str] = (),
    fuse: Fuse | None = None,
) -> nn.Module:
    """Remove the units that are not kept.

    Args:
        what: a network, a fit's result, or a subject; left alone.
        keep: group → (size,) bool; groups not named stay whole.
        example: (rows, ...), inputs of a network.
        exclude: groups of a network that stay whole.
        fuse: re-weights the readers of what stays.

    Returns:
        A smaller network, plain PyTorch, of the same class where its code allows that.

    Raises:
        SelectionError: masks that do not fit.
    """
    if not isinstance(keep, Mapping):
        raise SelectionError(
            f"keep={keep!r} must be masks, group → (size,) bool, as bp.selection.select(rule, subject) gives."
        )
    if fuse is not None and not callable(fuse):
        raise SelectionError(f"fuse={fuse!r} must be a bp.selection.Fuse(...), or left out.")
    subject = what if isinstance(what, Subject) else Subject.of(what, example, exclude)
    return subject.cut(keep) if fuse is None else fuse(subject, keep)


def path(
    what: Prunable | Subject,
    example: Tensor | None,
    rule: Rule,
    fractions: Iterable[float],
    scope: Scope | None = None,
    seed: int = 0,
    exclude: Iterable[str] = (),
    fuse: Fuse | None = None,
) -> Iterator[Candidate]:
    """Pruned networks of given sizes, one after the other; each is built when it is asked for.

    Args:
        what: a network, a fit's result, or a subject; left alone.
        example: (rows, ...), inputs of a network; rules that look at activations do so at these rows.
        rule: any.
        fractions: shares of the dense network's parameters, each in (0, 1].
        scope: ``"global"`` or ``"layer"``; by default the rule's.
        seed: of random rules; the same for all sizes, so that a scored rule's masks are nested.
        exclude: groups of a network that stay whole.
        fuse: re-weights the readers of what stays; of a rule over edges the edges that stay.

    Yields:
        A candidate for each fraction, not above it by a single parameter.

    Raises:
        SelectionError: as ``select``.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))
        >>> from bayesprune.selection import Magnitude
        >>> [c.parameters for c in path(network, torch.zeros(1, 6), Magnitude(), [1.0, 0.5, 0.1])]
        [203, 93, 13]
    """
    check_rule(rule)
    check_seed(seed, SelectionError)
    if isinstance(fractions, str) or not isinstance(fractions, Iterable):
        raise SelectionError(f"fractions={fractions!r} must be shares in (0, 1], such as [0.5, 0.1].")
    subject = what if isinstance(what, Subject) else Subject.of(what, example, exclude)
    check_scope(scope or rule.scope)
    family = rule.family(subject, scope or rule.scope, seed)
    for fraction in fractions:
        masks = _within(rule, subject, family, _budget(subject, fraction, None))
        if rule.edges:
            network = subject.zeroed(masks) if fuse is None else fuse.zeroed(subject, masks)
            parameters = subject.edge_parameters(masks)
        else:
            network = subject.cut(masks) if fuse is None else fuse(subject, masks)
            parameters = sum(p.numel() for p in network.parameters())
        yield Candidate(network, masks, parameters, parameters / subject.dense_parameters, rule.name)
