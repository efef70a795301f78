"""Batches of a training: rows in whichever form, on a device, in an order that seed and epoch fix."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from bayesprune.errors import DataError, SettingsError
from bayesprune.likelihoods import Likelihood
from bayesprune.rows import Batched, Form, InMemory, Pair, Source, rows_from
from bayesprune.structure.running import drawing_alike
from bayesprune.svi.processes import Processes

Train = Source
"""Rows to learn from or to score on: see ``bayesprune.rows``."""

USUAL = 128
"""Rows of a batch where nothing is said of them."""


class Batches:
    """Epochs of batches on a device.

    Args:
        train: a pair (inputs, targets) of tensors or numpy arrays, a torch ``Dataset``, a DataLoader, or a
            stream of batches that can be started anew.
        batch_size: rows of a batch; None for the DataLoader's own, 128 elsewhere.
        device: where batches are handed out. Tensors are moved there once.
        seed: with the epoch it fixes the order of the rows; a DataLoader has its own.
        rows: of the training set, where they cannot be counted (streams), or where an epoch is a sample of
            them.
        form: that a row's inputs must have, or None.

    Attributes:
        rows: rows of the training set, counted.
        steps: batches of an epoch.
        loader: the DataLoader, where there is one.
        check_targets: called with the targets of every batch that does not lie in memory, and their place.

    Raises:
        DataError: no rows, unequal numbers of inputs and targets, rows of another form, numbers that are not
            finite, or rows that nobody can count.
        SettingsError: a batch size that is none, or another than the DataLoader's.
    """

    def __init__(
        self,
        train: Train,
        batch_size: int | None,
        device: torch.device,
        seed: int,
        *,
        rows: int | None = None,
        form: Form | None = None,
    ) -> None:
        self.device, self.seed = device, seed
        self.check_targets: Callable[[Tensor, str], None] | None = None
        self.source = rows_from(train, "train", rows=rows, form=form, batch_size=batch_size or USUAL)
        self.batch_size = self.source.batch_size_of(batch_size, USUAL)
        self.loader: DataLoader[Pair] | None = None
        if isinstance(self.source, Batched) and isinstance(self.source.source, DataLoader):
            self.loader = self.source.source
        if isinstance(self.source, InMemory):
            self.source.to(device)
        if self.source.count is None:
            raise DataError(
                "train: how many rows an epoch gives cannot be counted before it has run (a stream, or a "
                "sampler without a length). Say so: rows=, those of the whole training set."
            )
        self.rows, self.steps = self.source.count, self.source.steps(self.batch_size)
        if not self.steps:
            raise DataError("train: an epoch has no batch. Give at least one, or leave drop_last out.")

    @property
    def targets(self) -> Tensor | None:
        """(rows, ...), all targets, where the rows lie in memory."""
        return self.source.y if isinstance(self.source, InMemory) else None

    def deal_(self, processes: Processes | None) -> None:
        """Let every process have its share: of each batch of rows that have a number, or as a loader deals.

        Args:
            processes: of the training, or None for one.

        Raises:
            SettingsError: fewer rows in a batch than processes.
            DataError: a loader that deals the same to all processes, or to others than there are.
        """
        rank, count = (processes.rank, processes.count) if processes else (0, 1)
        if not isinstance(self.source, Batched):
            if min(self.batch_size, self.rows) < count:
                raise SettingsError(
                    f"batch_size={min(self.batch_size, self.rows)} is divided among {count} processes, and "
                    f"is too small for that: take at least {count}."
                )
            self.source.part = (rank, count)
            return
        sampler = getattr(self.loader, "sampler", None)
        if isinstance(sampler, DistributedSampler):
            dealt = (int(sampler.rank), int(sampler.num_replicas))
        else:
            dealt = (0, 1)
        if dealt != (rank, count):
            raise DataError(
                f"train deals share {dealt[0] + 1} of {dealt[1]}, and this is process {rank + 1} of {count} "
                "in the training: give the rows themselves, of which each process takes its share; or a "
                "DataLoader with sampler=torch.utils.data.distributed.DistributedSampler(dataset)."
            )

    def teach_(self, likelihood: Likelihood) -> None:
        """Put beside the targets of rows in memory what a likelihood's teacher says of them, once.

        Of rows that come in batches it is asked when they come, in the step.

        Args:
            likelihood: of the training.

        Raises:
            LikelihoodError: the teacher does not run on a row, or what it says is not finite.
        """
        if isinstance(self.source, InMemory) and self.source.y is not None:
            with drawing_alike():  # the same table, and so the same training, every time
                self.source.y = likelihood.taught(self.source.x, self.source.y)

    def epoch(self, number: int) -> Iterator[Pair]:
        """One pass over the rows in a fresh order; rows that fill no whole batch sit it out.

        Args:
            number: of the epoch, from 0.

        Yields:
            Inputs (batch, ...) and targets (batch, ...).
        """
        passed = self.source.epoch(self.batch_size, self.seed, number)
        for place, (x, y) in enumerate(passed, start=1):
            if self.check_targets is not None and self.targets is None:
                self.check_targets(y, f"train, batch {place} of epoch {number + 1}")
            yield x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)


@contextmanager
def untouched(batches: Batches, seed: int | None = None) -> Iterator[None]:
    """Passes inside leave random numbers, torch's and those of a loader and its sampler, as they were.

    Args:
        batches: whose rows are passed over.
        seed: of what they draw inside; None for going on from where they are.
    """
    sources = (batches.loader, getattr(batches.loader, "sampler", None))
    generators = [g for g in (getattr(s, "generator", None) for s in sources) if g is not None]
    states = [generator.get_state() for generator in generators]
    try:
        with torch.random.fork_rng(devices=[]):
            if seed is not None:
                for generator in (torch.default_generator, *generators):
                    generator.manual_seed(seed)
            yield
    finally:  # a pass that was not gone through to its end is closed here
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def grouped(batches: Iterable[Pair], size: int) -> Iterator[list[Pair]]:
    """Batches in groups of ``size``, the last of which may be smaller."""
    batches = iter(batches)
    while group := list(itertools.islice(batches, size)):
        yield group
