"""What a question to a posterior is answered with: measures, thresholds, a verdict, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bayesprune.posterior.arviz import Groups
from bayesprune.posterior.rows import Rows
from bayesprune.svi.result import FitResult

Verdict = Literal["yes", "no", "not asked"]


@dataclass(frozen=True)
class Evidence:
    """What the questions are put to.

    Attributes:
        groups: the draws, group → variables.
        fits: the fits themselves, one a chain, where they are at hand.
        rows: (inputs, targets) that were trained on, where they are at hand.
        held_out: what the draws say of rows that were not, group → variables; of draws alone those in
            ``groups``, whose rows are whichever they were made with.
        trained_on: whether ``rows`` are known to be training rows; None where that cannot be told.
    """

    groups: Groups
    fits: tuple[FitResult, ...] = ()
    rows: Rows | None = None
    held_out: Groups | None = None
    trained_on: bool | None = None


@dataclass(frozen=True)
class Measure:
    """One number of an answer.

    Attributes:
        name: what it is, with its unit.
        value: the number, of the worst fit where there are several; NaN where it is not defined.
        threshold: what it is held against, in words; empty where it is only told.
        holds: whether it is within; None where it is only told, or not defined.
    """

    name: str
    value: float
    threshold: str = ""
    holds: bool | None = None

    def __str__(self) -> str:
        against = f" ({self.threshold})" if self.threshold else ""
        return f"{self.name} {self.value:.3g}{against}"


@dataclass(frozen=True)
class Answer:
    """The answer to one question.

    Attributes:
        question: its name.
        verdict: 'yes', 'no', or 'not asked' where what it needs is missing.
        measures: numbers with their thresholds.
        why: in plain words.
        next: what to do, in plain words.
    """

    question: str
    verdict: Verdict
    measures: tuple[Measure, ...]
    why: str
    next: str

    def __getitem__(self, name: str) -> float:
        """The value of a measure, by the beginning of its name."""
        found = [m.value for m in self.measures if m.name.startswith(name)]
        if not found:
            raise KeyError(f"{self.question} has no measure {name!r}: {[m.name for m in self.measures]}")
        return found[0]


def not_asked(question: str, why: str, remedy: str) -> Answer:
    """The answer where something is missing.

    Args:
        question: its name.
        why: what is missing, such as "needs 4 fits, and has 1".
        remedy: how to get it.
    """
    return Answer(question, "not asked", (), f"not asked: {why}", remedy)


def judged(question: str, measures: tuple[Measure, ...], fine: str, remedy: str, note: str = "") -> Answer:
    """Yes where every measure that is held against a threshold is within it.

    Args:
        question: its name.
        measures: the numbers.
        fine: why, if it is so.
        remedy: what to do, if it is not.
        note: added to why in either case.
    """
    broken = [m for m in measures if m.holds is False]
    why = "; ".join(f"{m.name} is {m.value:.3g}, not {m.threshold}" for m in broken) if broken else fine
    verdict: Verdict = "no" if broken else "yes"
    return Answer(
        question, verdict, measures, why + (f". {note}" if note else ""), remedy if broken else "nothing"
    )
