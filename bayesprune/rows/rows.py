"""The one notion of rows: how many an epoch is of, and how they are handed out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from bayesprune.errors import DataError, SettingsError
from bayesprune.ranges import is_whole
from bayesprune.rows.call import Call, Inputs, joined

Pair = tuple[Inputs, Tensor]
"""Inputs (batch, ...) and targets (batch, ...)."""


class Rows(ABC):
    """Rows to learn from or to score on.

    Attributes:
        place: what they are to the caller, for messages, such as "train".
        count: rows of an epoch: those of a data set, or those that a sampler draws; None where only a pass
            could tell.
        own_batch_size: rows of a batch, where the source makes its own batches and says how large.
        part: (number, of how many): the share of every batch that ``epoch`` hands out, where several
            processes divide it.
    """

    place: str
    count: int | None
    own_batch_size: int | None = None
    part: tuple[int, int] = (0, 1)

    @abstractmethod
    def steps(self, batch_size: int) -> int:
        """Batches of an epoch.

        Args:
            batch_size: rows of a batch; sources that make their own batches ignore it.
        """

    @abstractmethod
    def epoch(self, batch_size: int, seed: int, number: int) -> Iterator[Pair]:
        """One pass for learning: rows in a fresh order, or as the source deals them.

        Args:
            batch_size: as for ``steps``.
            seed: with the epoch it fixes the order, where the order is not the source's.
            number: of the epoch, from 0.
        """

    @abstractmethod
    def passed(self, batch_size: int) -> Iterator[tuple[Inputs, Tensor | None]]:
        """One pass for scoring: every row once, in the source's order; targets are None where there are none.

        Args:
            batch_size: as for ``steps``; the last batch may be smaller.
        """

    def smallest_batch(self, batch_size: int) -> int | None:
        """Rows of the smallest batch of an epoch; None where it cannot be known."""
        return min(batch_size, self.count) // self.part[1] if self.count else None

    def batches(self, batch_size: int, device: torch.device | None = None) -> Iterator[Pair]:
        """``passed``, on a device, for what needs targets.

        Raises:
            DataError: there are none, or no rows at all.
        """
        for x, y in self.passed(batch_size):
            if y is None:
                raise DataError(f"{self.place}: inputs alone, and rows are pairs (inputs, targets).")
            yield (x, y) if device is None else (x.to(device), y.to(device))

    def inputs(self, batch_size: int = 1000) -> Iterator[Inputs]:
        """(batch, ...) each, the inputs of ``passed``."""
        for x, _ in self.passed(batch_size):
            yield x

    def tensors(self) -> tuple[Inputs, Tensor | None]:
        """All rows of a pass in memory: (rows, ...) each.

        Raises:
            DataError: batches are of several lengths.
        """
        xs, ys = [], []
        for x, y in self.passed(1000):
            xs.append(x)
            ys.append(y)
        self._check_one_size(xs)
        known = [y for y in ys if y is not None]
        return joined(xs), torch.cat(known) if known else None

    def _check_one_size(self, xs: list[Inputs]) -> None:
        parts = [[x] if isinstance(x, Tensor) else x.tensors for x in xs]
        for part in parts[1:]:
            for number, (a, b) in enumerate(zip(parts[0], part, strict=True)):
                if a.shape[1:] != b.shape[1:]:
                    name = xs[0].form.names[number] if isinstance(xs[0], Call) else "the inputs"
                    raise DataError(
                        f"{self.place}: {name} have {tuple(a.shape[1:])} in one batch and "
                        f"{tuple(b.shape[1:])} in another, and all rows are needed in one tensor: pad them "
                        "to one size, or give batches of one size."
                    )

    def batch_size_of(self, asked: int | None, default: int) -> int:
        """Rows of a batch: as asked, or as the source has it.

        Args:
            asked: by the user; None for what is usual.
            default: what is usual, where the source makes no batches of its own.

        Raises:
            SettingsError: no whole number from 1, or another one than the source's.
        """
        if asked is not None and (not is_whole(asked) or asked < 1):
            raise SettingsError(f"batch_size={asked!r} must be a whole number, at least 1.")
        return default if asked is None else asked
