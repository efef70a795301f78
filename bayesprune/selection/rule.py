"""What a rule is: one small function of a subject, in one of three forms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from bayesprune.errors import SelectionError
from bayesprune.selection.family import Family, by_scores
from bayesprune.selection.masks import Masks, Scores
from bayesprune.selection.subject import Subject
from bayesprune.structure.naming import no_group

Scope = Literal["global", "layer"]


class Rule(ABC):
    """Turns a posterior, or a trained network, into masks.

    Attributes:
        edges: whether masks are of single weights, by tensor, and not of units, by group.
        scope: ``"global"`` compares scores over all groups; ``"layer"`` takes the same share of every group.
            A rule says which of them it is meant for; ``select`` and ``path`` let a caller say otherwise.
    """

    edges: ClassVar[bool] = False
    scope: Scope = "layer"

    @property
    def name(self) -> str:
        """How tables call it."""
        return type(self).__name__

    @abstractmethod
    def family(self, subject: Subject, scope: Scope, seed: int) -> Family:
        """Its masks at every size.

        Args:
            subject: what is pruned.
            scope: over all groups, or in each.
            seed: of whatever is random in it.
        """

    def masks(self, subject: Subject, seed: int = 0) -> Masks:
        """The masks that it keeps of its own accord, for rules that have an answer besides an order.

        Args:
            subject: what is pruned.
            seed: of whatever is random in it.

        Raises:
            SelectionError: this rule has none.
        """
        raise SelectionError(f"{self.name} only has an order: say how small, with share= or parameters=.")


class Scored(Rule):
    """A rule that puts units in an order: those of the lowest score go first."""

    @abstractmethod
    def scores(self, subject: Subject, seed: int = 0) -> Scores:
        """What every unit is worth.

        Args:
            subject: what is pruned.
            seed: of whatever is random in it.

        Returns:
            group → (group.size,), the higher, the longer a unit stays. What is given for removed units does
            not matter; groups not named stay whole.
        """

    def family(self, subject: Subject, scope: Scope, seed: int) -> Family:
        """Nested masks, in order of the scores."""
        return by_scores(subject, checked(self.name, subject, self.scores(subject, seed)), scope)


def checked(name: str, subject: Subject, scores: Scores) -> Scores:
    """Scores of every group, in float64 on the CPU; +∞ for groups that were left out.

    Args:
        name: of the rule.
        subject: whose groups.
        scores: as the rule gave them.

    Raises:
        SelectionError: unknown groups, other lengths, or numbers that are not numbers, all listed.
    """
    sizes = {group.name: group.size for group in subject.groups}
    wrong = [no_group(group, sizes) for group in scores if group not in sizes]
    for group, size in sizes.items():
        if group in scores and tuple(scores[group].shape) != (size,):
            wrong.append(f"the scores of {group!r} are {tuple(scores[group].shape)}: they must be ({size},)")
        elif group in scores and bool(torch.isnan(scores[group][subject.alive[group]]).any()):
            count = int(torch.isnan(scores[group]).sum())
            wrong.append(
                f"{count} of the {size} scores of {group!r} are NaN: look at weights and activations"
            )
    if wrong:
        raise SelectionError(f"Rule {name}: " + "; ".join(wrong) + ".")
    left_out: dict[str, Tensor] = {g: torch.full((n,), torch.inf) for g, n in sizes.items()}
    return {g: s.detach().double().cpu() for g, s in {**left_out, **scores}.items()}
