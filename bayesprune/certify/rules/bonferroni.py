"""Bonferroni: every candidate for itself, at its share of delta."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesprune.certify.pvalues import Array
from bayesprune.certify.rules.protocol import Decision, Rows, Tests


@dataclass(frozen=True)
class Bonferroni:
    r"""Each of m candidates is certified where :math:`p \le \delta / m`, whatever becomes of the others.

    Valid without any order; it pays with the logarithm of m.

    Example:
        >>> p = np.array([0.001, 0.2, 0.02, 0.01])
        >>> Bonferroni().decide(lambda rows: p, 4, 100, delta=0.05).certified.tolist()
        [True, False, False, True]
    """

    name = "bonferroni"
    orders = False

    def decide(self, tests: Tests, candidates: int, rows: int, delta: float) -> Decision:
        """Test all candidates.

        Args:
            tests: p-values on given rows.
            candidates: how many.
            rows: of calibration.
            delta: the family-wise error rate.
        """
        p_values, order = tests(np.arange(rows)), np.arange(candidates)
        return Decision(p_values, self.certified(p_values, order, delta), order, np.arange(rows))

    def certified(self, p_values: Array, order: Rows, delta: float) -> npt.NDArray[np.bool_]:
        """(candidates,), bool: those whose p-value is at most delta / m."""
        return np.asarray(p_values <= self.level(len(p_values), delta))

    def level(self, candidates: int, delta: float) -> float:
        """Delta / m."""
        return delta / candidates

    def tested_rows(self, rows: int) -> int:
        """All of them."""
        return rows

    def to_json(self) -> dict[str, Any]:
        """Its name: there is nothing to set."""
        return {"name": self.name}
