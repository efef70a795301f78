"""What a rule is: which of many hypotheses may be rejected so that any false rejection is rare."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bayesprune.certify.pvalues import Array

Rows = npt.NDArray[np.int64]
Tests = Callable[[Rows], Array]
"""Positions of calibration rows → (candidates,), the p-value of each candidate on these rows alone."""


@dataclass(frozen=True)
class Decision:
    """What a rule decided.

    Attributes:
        p_values: (candidates,), those that it decided by.
        certified: (candidates,), bool.
        order: (candidates,), positions in the order in which they were tested.
        rows: positions of the rows that the p-values rest on.
    """

    p_values: Array
    certified: npt.NDArray[np.bool_]
    order: Rows
    rows: Rows


class Rule(Protocol):
    """A way to test many candidates at once.

    The probability that any candidate is certified whose risk is above alpha (the family-wise error) is at
    most delta, however the candidates' losses hang together.
    """

    @property
    def name(self) -> str:
        """How a certificate calls it."""
        ...

    @property
    def orders(self) -> bool:
        """Whether it chooses the order of the tests itself, and does not take the path's."""
        ...

    def decide(self, tests: Tests, candidates: int, rows: int, delta: float) -> Decision:
        """Test the candidates.

        Args:
            tests: p-values on given rows.
            candidates: how many there are, the path's order being that of their positions.
            rows: of calibration.
            delta: the family-wise error rate.
        """
        ...

    def certified(self, p_values: Array, order: Rows, delta: float) -> npt.NDArray[np.bool_]:
        """(candidates,), bool: which are certified, given p-values and the order in which they are tested."""
        ...

    def level(self, candidates: int, delta: float) -> float:
        """What the first p-value has to undercut."""
        ...

    def tested_rows(self, rows: int) -> int:
        """How many of the calibration rows p-values are computed on."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Name and settings, from which the same rule is made again."""
        ...


class OnAllRows(ABC):
    """Base of the rules that take the path's order, and test on all rows."""

    orders = False

    def decide(self, tests: Tests, candidates: int, rows: int, delta: float) -> Decision:
        """Test the candidates, as ``certified`` says.

        Args:
            tests: p-values on given rows.
            candidates: how many.
            rows: of calibration.
            delta: the family-wise error rate.
        """
        p_values, order = tests(np.arange(rows)), np.arange(candidates)
        return Decision(p_values, self.certified(p_values, order, delta), order, np.arange(rows))

    @abstractmethod
    def certified(self, p_values: Array, order: Rows, delta: float) -> npt.NDArray[np.bool_]:
        """(candidates,), bool: which are certified, given p-values and the order in which they are tested."""

    def tested_rows(self, rows: int) -> int:
        """All of them."""
        return rows


def in_sequence(p_values: Array, order: Rows, delta: float) -> npt.NDArray[np.bool_]:
    """(candidates,), certified: those before the first, in the given order, whose p-value is above delta."""
    certified = np.zeros(len(p_values), dtype=np.bool_)
    certified[order] = np.logical_and.accumulate(p_values[order] <= delta)
    return certified


def level_at(rule: Rule, place: int, p_values: Array, order: Rows, delta: float) -> float:
    """What the p-value of one candidate has to undercut, given those of all.

    Args:
        rule: whose levels are the same for all candidates, or that has ``levels(p_values, order, delta)``.
        place: position of the candidate.
        p_values: (candidates,).
        order: (candidates,), of the tests.
        delta: the family-wise error rate.
    """
    levels = getattr(rule, "levels", None)
    if levels is None:
        return rule.level(len(p_values), delta)
    return float(levels(p_values, order, delta)[place])
