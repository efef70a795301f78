"""Batches of a data set: tensors in memory, shuffled by seed and epoch alone, or a user's own DataLoader."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bayesprune.errors import DataError

Train = tuple[Tensor, Tensor] | DataLoader[tuple[Tensor, Tensor]]


class Batches:
    """Epochs of batches on a device.

    Args:
        train: (inputs, targets), tensors of equally many rows; or a DataLoader that yields such pairs.
        batch_size: rows of a batch; a DataLoader has its own.
        device: where batches are handed out. Tensors are moved there once.
        seed: with the epoch it fixes the order of the rows.

    Raises:
        DataError: no rows, unequal numbers of rows, or inputs that are not finite.
    """

    def __init__(self, train: Train, batch_size: int, device: torch.device, seed: int) -> None:
        self.device, self.seed = device, seed
        self.loader = train if isinstance(train, DataLoader) else None
        if self.loader is not None:
            self.rows = len(self.loader.dataset)  # type: ignore[arg-type]
            self.steps = len(self.loader)
            self.x = self.y = torch.empty(0)
        else:
            self.x, self.y = (t.to(device) for t in train)
            self.rows = len(self.x)
            self.batch_size = min(batch_size, self.rows)
            self.steps = self.rows // self.batch_size if self.rows else 0
            self._check()
        if not self.rows or not self.steps:
            raise DataError("The training data has no rows: nothing can be learnt from it.")

    def _check(self) -> None:
        if len(self.x) != len(self.y):
            raise DataError(
                f"There are {len(self.x)} rows of inputs and {len(self.y)} of targets: every row needs both."
            )
        for name, tensor in (("inputs", self.x), ("targets", self.y)):
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                row = int((~torch.isfinite(tensor).reshape(len(tensor), -1).all(1)).nonzero()[0])
                raise DataError(
                    f"The {name} hold NaN or infinity, first in row {row}: clean or drop such rows."
                )

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over the rows in a fresh order; rows that fill no whole batch sit it out.

        Args:
            number: of the epoch, from 0.

        Yields:
            Inputs (batch, ...) and targets (batch, ...).
        """
        if self.loader is not None:
            for x, y in self.loader:
                yield x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)
            return
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        order = torch.randperm(self.rows, generator=generator).to(self.device)
        for start in range(0, self.steps * self.batch_size, self.batch_size):
            rows = order[start : start + self.batch_size]
            yield self.x.index_select(0, rows), self.y.index_select(0, rows)
