"""Rows in memory: tensors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bayesprune.rows.call import Inputs
from bayesprune.rows.checks import check_whole
from bayesprune.rows.rows import Pair, Rows


class InMemory(Rows):
    """Tensors; an epoch is a pass in an order of its own, and rows that fill no whole batch sit it out.

    Since the order is another in every epoch, each row has its turn: ``count`` is all of them.

    Args:
        x: (rows, ...), inputs.
        y: (rows, ...), targets, or None.
        place: of the rows, for messages.

    Raises:
        DataError: unequal numbers of rows, none, or numbers that are not finite.
    """

    count: int

    def __init__(self, x: Inputs, y: Tensor | None, place: str) -> None:
        self.x, self.y, self.place, self.count = x, y, place, len(x)
        check_whole(x, y, place)

    def to(self, device: torch.device) -> InMemory:
        """The same rows on a device; in place."""
        self.x, self.y = self.x.to(device), None if self.y is None else self.y.to(device)
        return self

    def steps(self, batch_size: int) -> int:
        """Whole batches of the rows."""
        return self.count // min(batch_size, self.count)

    def epoch(self, batch_size: int, seed: int, number: int) -> Iterator[Pair]:
        """One pass in a fresh order."""
        assert self.y is not None
        for rows in shuffled(self.count, batch_size, seed, number, self.part):
            rows = rows.to(self.x.device)
            yield self.x.index_select(0, rows), self.y.index_select(0, rows)

    def passed(self, batch_size: int) -> Iterator[tuple[Inputs, Tensor | None]]:
        """All rows in order."""
        for start in range(0, self.count, batch_size):
            part = slice(start, start + batch_size)
            yield self.x[part], None if self.y is None else self.y[part]

    def tensors(self) -> tuple[Inputs, Tensor | None]:
        """As they are."""
        return self.x, self.y


def shuffled(
    count: int, batch_size: int, seed: int, number: int, part: tuple[int, int] = (0, 1)
) -> Iterator[Tensor]:
    """Whole batches of row numbers, in the order that seed and epoch fix.

    Args:
        count: rows.
        batch_size: rows of a batch; all, where there are fewer.
        seed: of the run.
        number: of the epoch, from 0.
        part: (number, of how many), the share of every batch.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
    order = torch.randperm(count, generator=generator)
    batch_size = min(batch_size, count)
    for start in range(0, count // batch_size * batch_size, batch_size):
        yield order[start : start + batch_size].tensor_split(part[1])[part[0]]
