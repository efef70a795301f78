"""Rows of a map-style data set, one by one by their number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import default_collate

from bayesprune.errors import DataError
from bayesprune.rows.call import Inputs
from bayesprune.rows.checks import check_whole
from bayesprune.rows.form import Form
from bayesprune.rows.memory import shuffled
from bayesprune.rows.pairs import pair_of
from bayesprune.rows.rows import Pair, Rows


class Items(Rows):
    """A data set with ``len`` and ``[number]``, read in this process; for workers, wrap it in a DataLoader.

    The order is that of tensors: by seed and epoch alone.

    Args:
        dataset: a row by its number is a pair (inputs, target).
        place: of the rows, for messages.
        targets: whether they are needed.
        form: that a row's inputs must have, or None.

    Raises:
        DataError: no rows.
    """

    count: int

    def __init__(self, dataset: Any, place: str, targets: bool = True, form: Form | None = None) -> None:
        self.dataset, self.place, self.targets, self.form = dataset, place, targets, form
        self.count = len(dataset)
        if not self.count:
            raise DataError(f"{place}: no rows. Give at least one.")

    def steps(self, batch_size: int) -> int:
        """Whole batches of the rows."""
        return self.count // min(batch_size, self.count)

    def epoch(self, batch_size: int, seed: int, number: int) -> Iterator[Pair]:
        """One pass in a fresh order."""
        for rows in shuffled(self.count, batch_size, seed, number, self.part):
            x, y = self._batch(rows.tolist())
            assert y is not None
            yield x, y

    def passed(self, batch_size: int) -> Iterator[tuple[Inputs, Tensor | None]]:
        """All rows in order."""
        for start in range(0, self.count, batch_size):
            yield self._batch(range(start, min(start + batch_size, self.count)))

    def _batch(self, rows: Sequence[int]) -> tuple[Inputs, Tensor | None]:
        place = f"{self.place}, rows {rows[0]} …" if len(rows) > 1 else f"{self.place}, row {rows[0]}"
        several = getattr(self.dataset, "__getitems__", None)
        items = several(list(rows)) if callable(several) else [self.dataset[row] for row in rows]
        try:
            batch = default_collate(items)
        except (TypeError, RuntimeError) as problem:
            raise DataError(
                f"{place}: the rows cannot be stacked to a batch ({problem}). Give a DataLoader of the data "
                "set whose collate_fn makes pairs of tensors."
            ) from problem
        x, y = pair_of(batch, place, self.targets, self.form)
        check_whole(x, y, place)
        return x, y
