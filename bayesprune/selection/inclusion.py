"""Rules that read inclusion probabilities: their order, and the median probability model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bayesprune.selection.family import Family, by_scores, tied
from bayesprune.selection.masks import Masks, Scores, floor
from bayesprune.selection.rule import Scope, Scored
from bayesprune.selection.subject import Subject


@dataclass(frozen=True)
class InclusionProb(Scored):
    r"""The order of the inclusion probabilities θ_u = q(z_u = 1), and the median probability model.

    Scores are log-odds, log θ/(1 − θ), which keep their order where θ has rounded to 1. Its own answer is
    θ > ½: for the squared error of an orthogonal linear model it is the best single model (Barbieri & Berger,
    2004, Optimal Predictive Model Selection); elsewhere it is a convention. A fit bounds its log-odds:
    units at the bound are all as probable, and a path that has to choose among them warns (``TiesWarning``).
    """

    scope: Scope = field(default="global", init=False, repr=False)

    def scores(self, subject: Subject, seed: int = 0) -> Scores:
        """group → (size,), log-odds of staying, nats."""
        return log_odds(subject)

    def family(self, subject: Subject, scope: Scope, seed: int) -> Family:
        """Nested masks, which know where log-odds that are equal would be told apart by position alone."""
        scores = self.scores(subject, seed)
        family = by_scores(subject, scores, scope)
        return (
            replace(family, ties=lambda masks: tied(subject, scores, masks)) if scope == "global" else family
        )

    def masks(self, subject: Subject, seed: int = 0) -> Masks:
        """θ > ½; the most probable unit of every group at least."""
        return above(subject, log_odds(subject), 0.0)


def log_odds(subject: Subject) -> Scores:
    """group → (size,), log-odds of inclusion, nats, on the CPU."""
    posterior = subject.posterior
    flat = posterior.log_odds.detach().double().cpu()
    return {name: value.clone() for name, value in posterior.by_group(flat).items()}


def above(subject: Subject, scores: Scores, line: float) -> Masks:
    """The living units whose score is above a line, and the best one of every group.

    Args:
        subject: what is pruned.
        scores: group → (size,).
        line: what has to be passed.
    """
    least = floor(subject.groups, subject.slots, scores, subject.alive)
    return {name: ((score > line) & subject.alive[name]) | least[name] for name, score in scores.items()}
