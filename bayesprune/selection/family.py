"""Family: a rule's masks at every size, from the smallest network to the whole one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesprune.errors import SelectionError
from bayesprune.selection.masks import Masks, Scores, floor
from bayesprune.selection.subject import Subject


@dataclass(frozen=True)
class Family:
    """Masks by the number of units that stay beyond the least.

    Attributes:
        steps: units between the smallest network and the whole one; ``at(0)`` … ``at(steps)``.
        at: step → masks.
        ties: masks → units that the rule cannot tell from one on the other side; None where it never asks.
        parameters: step → parameters of the network, for a rule that knows them without its masks, which cost
            much to draw.
    """

    steps: int
    at: Callable[[int], Masks]
    ties: Callable[[Masks], int] | None = None
    parameters: Callable[[int], int] | None = None


def by_scores(subject: Subject, scores: Scores, scope: str) -> Family:
    """Nested masks: units come in the order of their scores, best first.

    Within ``"layer"`` the j-th best of n units comes at j / n, so that every group has the same share of its
    units at every step, and one unit comes at a time. Ties are broken by position.

    Args:
        subject: what is pruned.
        scores: group → (size,), for every group.
        scope: ``"global"`` or ``"layer"``.
    """
    check_scope(scope)
    least = floor(subject.groups, subject.slots, scores, subject.alive)
    names, keys = [], []
    for group in subject.groups:
        alive, value = subject.alive[group.name], scores[group.name]
        kept = least[group.name]
        key = torch.where(kept, torch.inf, value) if scope == "global" else _place(value, alive, kept)
        stays = torch.isinf(value) & (value > 0)
        key = torch.where(stays, torch.inf, key)
        names.append(group.name)
        keys.append(torch.where(alive, key, torch.nan))
    flat = torch.cat(keys)
    order = torch.where(torch.isnan(flat), -torch.inf, flat).argsort(descending=True, stable=True)
    order = order[: int((~torch.isnan(flat)).sum())]
    first = int((torch.isinf(flat) & (flat > 0)).sum())
    sizes = [group.size for group in subject.groups]

    def at(step: int) -> Masks:
        mask = torch.zeros(len(flat), dtype=torch.bool)
        mask[order[: first + step]] = True
        return dict(zip(names, mask.split(sizes), strict=True))

    return Family(len(order) - first, at)


def _place(scores: Tensor, alive: Tensor, kept: Tensor) -> Tensor:
    """(size,), minus the share of the group that is there once this unit is: the best one's is −1/n."""
    ranked = torch.where(kept, torch.inf, torch.where(alive, scores, -torch.inf))
    places = torch.empty(len(scores), dtype=torch.float64)
    places[ranked.argsort(descending=True, stable=True)] = torch.arange(
        1, len(scores) + 1, dtype=torch.float64
    )
    return torch.where(kept, torch.inf, -places / max(int(alive.sum()), 1))


def tied(subject: Subject, scores: Scores, masks: Masks) -> int:
    """How many units have the same score as one on the other side of the masks.

    Args:
        subject: what is pruned.
        scores: group → (size,), compared over all groups.
        masks: group → (size,) bool.
    """
    alive = torch.cat([subject.alive[g.name] for g in subject.groups])
    flat, kept = (torch.cat([of[g.name] for g in subject.groups])[alive] for of in (scores, masks))
    if bool(kept.all()):
        return 0
    best = flat[~kept].max()
    return int((flat == best).sum()) if bool((flat[kept] == best).any()) else 0


def by_sizes(subject: Subject, draw: Callable[[dict[str, int]], Masks]) -> Family:
    """Masks of a rule that chooses sets of a given size: the same share of every group, drawn anew at each.

    Args:
        subject: what is pruned.
        draw: group → units to keep, between 1 and those alive → masks.
    """
    places = torch.cat(
        [
            torch.arange(1, n + 1, dtype=torch.float64) / n
            for n in (int(subject.alive[g.name].sum()) for g in subject.groups)
        ]
    )
    counts = [int(subject.alive[g.name].sum()) for g in subject.groups]
    owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    fixed = torch.tensor([group.optional for group in subject.groups])[owner]
    starts = torch.tensor([0, *counts[:-1]]).cumsum(0)
    first = torch.zeros(len(places), dtype=torch.bool)
    first[starts[torch.tensor(counts) > 0]] = True
    order = torch.where(fixed | first, -1.0, places).argsort(stable=True)
    least = int((fixed | first).sum())

    def at(step: int) -> Masks:
        there = torch.bincount(owner[order[: least + step]], minlength=len(counts))
        return draw({g.name: int(n) for g, n in zip(subject.groups, there, strict=True)})

    return Family(len(order) - least, at)


def check_scope(scope: str) -> None:
    """Complain about a scope that there is not.

    Raises:
        SelectionError: it is named.
    """
    if scope not in ("global", "layer"):
        raise SelectionError(f"scope={scope!r} is neither 'global' nor 'layer'.")


def largest(family: Family, size: Callable[[Masks], int], budget: int) -> Masks | None:
    """The masks of the largest network of a family that is not above a budget.

    Sizes grow with the steps, so the step is found by halving.

    Args:
        family: of a rule.
        size: masks → parameters.
        budget: parameters.

    Returns:
        The masks; None where even the smallest network is above.
    """
    low, high, best = 0, family.steps, None
    while low <= high:
        step = (low + high) // 2
        masks = family.at(step)
        if size(masks) <= budget:
            best, low = masks, step + 1
        else:
            high = step - 1
    return best


def drawn(family: Family, budget: int) -> Masks | None:
    """The same for a family that knows its sizes: masks are asked for once.

    Args:
        family: with ``parameters``, which grow with the steps.
        budget: parameters.

    Returns:
        The masks; None where even the smallest network is above.
    """
    assert family.parameters is not None
    above = bisect_right(range(family.steps + 1), budget, key=family.parameters)
    return None if above == 0 else family.at(above - 1)
