"""What a loss is: a number in [0, 1] for each calibration row, and what a bound on its mean says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from bayesprune.certify.pvalues import Array, PValue, rows_needed


@dataclass(frozen=True)
class Scores:
    """The losses of one network.

    Attributes:
        values: (rows,), float64 in [0, 1].
        counted: (rows,), bool: the rows that the risk is about; all of them, but for selective losses.
    """

    values: Array
    counted: npt.NDArray[np.bool_]

    def on(self, rows: npt.NDArray[np.int64]) -> Scores:
        """Those of some rows."""
        return Scores(self.values[rows], self.counted[rows])

    @property
    def losses(self) -> Array:
        """(counted rows,), float64."""
        return self.values[self.counted]

    @property
    def coverage(self) -> float:
        """Share of the rows that count."""
        return float(np.mean(self.counted))


class Loss(ABC):
    """Base of the losses. One of your own is made by ``OwnLoss``, or overrides ``values`` and ``promise``.

    Attributes:
        name: as a certificate calls it.
        zero_one: whether every value is 0 or 1, so that the binomial p-value is exact.
        labelled: whether targets are needed.
        comparing: whether the reference network's outputs are needed.
    """

    name: str = "loss"
    zero_one: bool = True
    labelled: bool = True
    comparing: bool = False

    def scores(self, outputs: Tensor, reference: Tensor, targets: Tensor | None) -> Scores:
        """The loss of each row.

        Args:
            outputs: (rows, ...), of the candidate.
            reference: (rows, ...), of the reference network.
            targets: (rows,), labels, where the loss needs them.
        """
        values = self.values(outputs, reference, targets).detach().cpu().double().numpy()
        return Scores(values, np.ones(len(values), dtype=np.bool_))

    @abstractmethod
    def values(self, outputs: Tensor, reference: Tensor, targets: Tensor | None) -> Tensor:
        """(rows,), in [0, 1]."""

    @abstractmethod
    def promise(self, level: str) -> str:
        """What is said of the network where the risk is at most alpha: the end of a sentence about it.

        Args:
            level: alpha, in percent: ``'2 %'``.
        """

    def level(self, alpha: float) -> float:
        """The mean of ``values`` that stands for a risk of alpha."""
        return alpha

    def risk(self, scores: Scores) -> float:
        """The risk on these rows; NaN where none is counted."""
        return float(scores.losses.mean()) if len(scores.losses) else float("nan")

    def p_value(self, scores: Scores, alpha: float, p_value: PValue) -> float:
        """The p-value of the hypothesis that the risk is above alpha."""
        return float(p_value(scores.losses, self.level(alpha)))

    def least_rows(self, p_value: PValue, alpha: float, delta: float) -> int | None:
        """Rows without which nothing can be certified, even if none has a loss; None where no number is
        enough.
        """
        return rows_needed(p_value, self.level(alpha), delta)

    def details(self, scores: Scores, alpha: float, p_value: PValue) -> dict[str, Any]:
        """What a certificate says of a candidate besides risk and p-value, as plain values."""
        return {}

    def problems(self, reference: Tensor, targets: Tensor | None) -> list[str]:
        """Every reason why these outputs and targets cannot be scored; empty if they can."""
        return []

    def to_json(self) -> dict[str, Any]:
        """Name and settings, from which the same loss is made again."""
        return {"name": self.name}


class OnSomeRows(Loss):
    """Base of the losses that are another loss, on some rows.

    Attributes:
        loss: the other one.
    """

    loss: Loss

    @abstractmethod
    def counted(self, outputs: Tensor, reference: Tensor, targets: Tensor | None) -> Tensor:
        """(rows,), bool: which rows the risk is about."""

    def scores(self, outputs: Tensor, reference: Tensor, targets: Tensor | None) -> Scores:
        """The other loss, with the rows that count."""
        counted = self.counted(outputs, reference, targets).cpu().numpy()
        return Scores(super().scores(outputs, reference, targets).values, counted)

    def values(self, outputs: Tensor, reference: Tensor, targets: Tensor | None) -> Tensor:
        """(rows,), the other loss, of rows that count and of others."""
        return self.loss.values(outputs, reference, targets)

    def level(self, alpha: float) -> float:
        """The other loss's."""
        return self.loss.level(alpha)

    def risk(self, scores: Scores) -> float:
        """The other loss's, on the rows that count; NaN where there are none."""
        return self.loss.risk(scores)
