"""What a p-value is to the room: a function of losses in [0, 1] that is small where their mean is."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@runtime_checkable
class PValue(Protocol):
    """A p-value of the hypothesis that the mean loss is above a level.

    Valid means: where the rows are independent draws whose mean loss is at least alpha, the value is at most
    u with probability at most u, for every u, at every number of rows.
    """

    @property
    def name(self) -> str:
        """How a certificate calls it."""
        ...

    @property
    def zero_one(self) -> bool:
        """Whether it is valid for losses of 0 and 1 alone."""
        ...

    def __call__(self, losses: Array, alpha: float) -> Array:
        """The p-value.

        Args:
            losses: (..., rows), float64 in [0, 1].
            alpha: the level of the mean loss, in (0, 1).

        Returns:
            (...,), in [0, 1]; 1 where there are no rows.
        """
        ...

    def to_json(self) -> dict[str, Any]:
        """Name and settings, from which the same p-value is made again."""
        ...
