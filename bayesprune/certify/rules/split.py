"""The split fixed sequence: some rows choose the order, the others test in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesprune.certify.pvalues import Array
from bayesprune.certify.rules.protocol import Decision, Rows, Tests, in_sequence
from bayesprune.errors import CertificateError


@dataclass(frozen=True)
class SplitFixedSequence:
    r"""A share of the rows orders the candidates by their p-values; the rest tests them in that order.

    Given the first share the order is fixed, and the rest is independent of it: the argument of the fixed
    sequence holds. It is for paths whose risk goes up and down, on which the path's own order stops at the
    first bump, and pays with the rows that only order.

    Args:
        share: of the rows that order, in (0, 1).
        seed: of the split, fixed beforehand.

    Source:
        Angelopoulos et al. (2021), Learn then Test, arXiv 2110.01052, split fixed sequence testing.

    Example:
        >>> p = np.array([0.001, 0.2, 0.02, 0.01])
        >>> SplitFixedSequence().decide(lambda rows: p, 4, 100, delta=0.05).certified.tolist()
        [True, False, True, True]
    """

    share: float = 0.5
    seed: int = 0

    name = "split-fixed-sequence"
    orders = True

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise CertificateError(
                f"SplitFixedSequence(share={self.share!r}): the share of rows that choose the order must lie "
                "between 0 and 1, as 0.5."
            )

    def decide(self, tests: Tests, candidates: int, rows: int, delta: float) -> Decision:
        """Order the candidates on the first part of the rows, and test them on the second.

        Args:
            tests: p-values on given rows.
            candidates: how many.
            rows: of calibration.
            delta: the family-wise error rate.
        """
        first, second = self._parts(rows)
        order = np.argsort(tests(first), kind="stable").astype(np.int64)
        p_values = tests(second)
        return Decision(p_values, self.certified(p_values, order, delta), order, second)

    def certified(self, p_values: Array, order: Rows, delta: float) -> npt.NDArray[np.bool_]:
        """(candidates,), bool: those before the first, in this order, whose p-value is above delta."""
        return in_sequence(p_values, order, delta)

    def level(self, candidates: int, delta: float) -> float:
        """Delta, whatever the number of candidates."""
        return delta

    def tested_rows(self, rows: int) -> int:
        """Those of the second part."""
        return len(self._parts(rows)[1])

    def _parts(self, rows: int) -> tuple[Rows, Rows]:
        order = np.random.default_rng(self.seed).permutation(rows)
        ordering = int(rows * self.share)
        return np.sort(order[:ordering]), np.sort(order[ordering:])

    def to_json(self) -> dict[str, Any]:
        """Name and settings."""
        return {"name": self.name, "share": self.share, "seed": self.seed}
