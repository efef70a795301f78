"""A data set: what the programs train and are tested on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Rows to train on, or to test on.

    Attributes:
        x: (rows, channels, height, width) float32, images; (rows, ...) in a program's own data.
        y: (rows,) int64, class of each row, from 0; or real targets.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Dataset:
    """A training and a test split of the same classes.

    Attributes:
        name: short name, fit for a folder.
        train: rows to learn from.
        test: rows that only the final figures are computed on.
        classes: number of classes.
        note: what the user should know about how the data were read; mostly empty.
    """

    name: str
    train: Split
    test: Split
    classes: int
    note: str = ""
