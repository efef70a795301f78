"""The fixed sequence: from no pruning upward, until a candidate fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesprune.certify.pvalues import Array
from bayesprune.certify.rules.protocol import OnAllRows, Rows, in_sequence


@dataclass(frozen=True)
class FixedSequence(OnAllRows):
    r"""Candidates are tested in the path's order, each at the full delta, up to the first that fails.

    .. math:: \text{certify } j \iff p_i \le \delta \text{ for all } i \le j

    The first candidate of the order whose risk is above alpha is certified falsely with probability delta at
    most, and no other can be before it is: nothing is paid for the number of candidates. The order must be
    fixed before the calibration rows are seen. Where a candidate in the middle fails by bad luck, or because
    the path's risk is not monotone, all after it are lost: see ``SplitFixedSequence``.

    Source:
        A. Angelopoulos, S. Bates, E. Candès, M. Jordan & L. Lei (2021), Learn then Test, arXiv 2110.01052.

    Example:
        >>> p = np.array([0.001, 0.02, 0.2, 0.01])
        >>> FixedSequence().decide(lambda rows: p, 4, 100, delta=0.05).certified.tolist()
        [True, True, False, False]
    """

    name = "fixed-sequence"

    def certified(self, p_values: Array, order: Rows, delta: float) -> npt.NDArray[np.bool_]:
        """(candidates,), bool: those before the first, in this order, whose p-value is above delta."""
        return in_sequence(p_values, order, delta)

    def level(self, candidates: int, delta: float) -> float:
        """Delta, whatever the number of candidates."""
        return delta

    def to_json(self) -> dict[str, Any]:
        """Its name: there is nothing to set."""
        return {"name": self.name}
