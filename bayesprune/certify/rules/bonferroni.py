"""Bonferroni: every candidate for itself, at its share of delta."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesprune.certify.pvalues import Array
from bayesprune.certify.rules.protocol import OnAllRows, Rows


@dataclass(frozen=True)
class Bonferroni(OnAllRows):
    r"""Each of m candidates is certified where :math:`p \le \delta / m`, whatever becomes of the others.

    Valid without any order; it pays with the logarithm of m.

    Example:
        >>> p = np.array([0.001, 0.2, 0.02, 0.01])
        >>> Bonferroni().decide(lambda rows: p, 4, 100, delta=0.05).certified.tolist()
        [True, False, False, True]
    """

    name = "bonferroni"

    def certified(self, p_values: Array, order: Rows, delta: float) -> npt.NDArray[np.bool_]:
        """(candidates,), bool: those whose p-value is at most delta / m."""
        return np.asarray(p_values <= self.level(len(p_values), delta))

    def level(self, candidates: int, delta: float) -> float:
        """Delta / m."""
        return delta / candidates

    def to_json(self) -> dict[str, Any]:
        """Its name: there is nothing to set."""
        return {"name": self.name}
