"""Rows that come in batches of their own: DataLoaders, and streams that can be started anew."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from bayesprune.errors import DataError, SettingsError
from bayesprune.rows.call import Inputs
from bayesprune.rows.checks import check_whole
from bayesprune.rows.counts import Count, rows_of_loader
from bayesprune.rows.form import Form
from bayesprune.rows.pairs import pair_of
from bayesprune.rows.rows import Pair, Rows

SLACK = 0.1
"""By which share the number of batches of an epoch may be off the planned one: batches of unequal sizes."""


class Batched(Rows):
    """A DataLoader, or anything that yields batches (inputs, targets) each time it is iterated over.

    Every batch is checked when it comes, and every pass counted: one that gives another number of rows than
    an epoch is of ends in an error.

    Args:
        source: the loader or stream.
        place: of the rows, for messages.
        rows: of the training set, where they cannot be counted or an epoch is a sample of them.
        targets: whether they are needed.
        form: that a row's inputs must have, or None.

    Raises:
        DataError: no rows; or ``rows`` is not what was counted.
    """

    def __init__(
        self,
        source: Any,
        place: str,
        rows: int | None = None,
        targets: bool = True,
        form: Form | None = None,
    ) -> None:
        self.source, self.place, self.targets, self.form = source, place, targets, form
        loader = source if isinstance(source, DataLoader) else None
        self.found = Count(None) if loader is None else rows_of_loader(loader, place)
        if loader is not None and type(loader.batch_size) is int:
            self.own_batch_size = loader.batch_size
        self.count = self._agreed(rows)

    def _agreed(self, rows: int | None) -> int | None:
        counted = self.found.rows
        if rows is None or rows == counted:
            rows = counted
        elif counted is not None and not self.found.sampled:
            raise DataError(
                f"{self.place}: rows={rows} was said, and an epoch of the loader is of {counted} rows, "
                "counted by its sampler. Leave rows= out."
            )
        if rows == 0 or self.found.dealt == 0:
            raise DataError(f"{self.place}: an epoch of the loader has no rows. Give at least one batch.")
        return rows

    def steps(self, batch_size: int) -> int:
        """As the loader says; else by the first batch and the rows of an epoch."""
        try:
            return len(self.source)
        except (TypeError, NotImplementedError):
            pass
        if self.count is None:
            raise DataError(f"{self.place}: a stream of unknown length. Say how many rows it has, rows=.")
        size = self.own_batch_size or len(next(self.passed(batch_size))[0])
        whole = bool(getattr(self.source, "drop_last", False))
        return max(self.count // size, 1) if whole else math.ceil(self.count / size)

    def smallest_batch(self, batch_size: int) -> int | None:
        """By the loader's sampler."""
        return self.found.smallest

    def epoch(self, batch_size: int, seed: int, number: int) -> Iterator[Pair]:
        """One pass, as the source deals it; a ``DistributedSampler`` is told the epoch, or deals the same."""
        sampler = getattr(self.source, "sampler", None)
        if isinstance(sampler, DistributedSampler):
            sampler.set_epoch(number)
        seen = batches = 0
        for x, y in self._passed(f" of epoch {number + 1}"):
            seen, batches = seen + len(x), batches + 1
            if self._more_than_told(seen):
                break
            assert y is not None
            yield x, y
        self._check_pass(seen)
        planned = self.steps(batch_size)
        if abs(batches - planned) > max(1, SLACK * planned):
            raise DataError(
                f"{self.place}: a pass gave {batches} batches, and {planned} were planned, by which "
                "the training is timed. Let the loader's or stream's __len__ be the number of its batches."
            )

    def passed(self, batch_size: int) -> Iterator[tuple[Inputs, Tensor | None]]:
        """One pass, as the source deals it."""
        batch = None
        for batch in self._passed(""):
            yield batch
        if batch is None:
            raise DataError(f"{self.place}: a pass gave no batch. Give at least one.")

    def _passed(self, epoch: str) -> Iterator[tuple[Inputs, Tensor | None]]:
        for number, batch in enumerate(self.source, start=1):
            place = f"{self.place}, batch {number}{epoch}"
            x, y = pair_of(batch, place, self.targets, self.form)
            check_whole(x, y, place)
            yield x, y

    def _more_than_told(self, seen: int) -> bool:
        """Whether a stream goes on where it was said to end; it may have no end."""
        return self.found.dealt is None and not self.found.sampled and seen > (self.count or seen)

    def _check_pass(self, seen: int) -> None:
        """The rows of a pass are those that an epoch is of."""
        dealt = self.found.dealt if self.found.dealt is not None else self.count
        short = 0
        if self.found.dealt is None and getattr(self.source, "drop_last", False):
            workers = max(1, getattr(self.source, "num_workers", 0))
            short = workers * ((self.own_batch_size or 1) - 1)  # what each may have left over
        if dealt is None or dealt - short <= seen <= dealt:
            return
        more = "more than " if self._more_than_told(seen) else ""
        told = f"{more}{dealt}" if more else str(seen)
        raise DataError(
            f"{self.place}: an epoch gave {told} rows, and {dealt} were "
            f"{'counted by its sampler' if self.found.dealt is not None else 'said'}: the prior would weigh "
            "otherwise than it should. Say how many rows a pass gives, and let every pass give as many "
            "(itertools.islice ends one that has no end)."
        )

    def batch_size_of(self, asked: int | None, default: int) -> int:
        """The loader's; another one beside it is refused."""
        own = self.own_batch_size
        super().batch_size_of(asked, default)
        if asked is not None and asked != own:
            size = "batches of its own" if own is None else f"batches of {own}"
            raise SettingsError(
                f"batch_size={asked} stands beside {self.place}, a {type(self.source).__name__} with {size}: "
                f"leave batch_size out, or make the loader with batch_size={asked}."
            )
        return own or default
