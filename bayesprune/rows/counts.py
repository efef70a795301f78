"""How many rows an epoch of a DataLoader is of: by its sampler, not by its data set.

A data set of 5,000 rows of which a ``SubsetRandomSampler`` draws 500 is, to whoever learns from it, one of
500. Rows that ``drop_last`` leaves over count where the order is shuffled, since each has its turn; in a
fixed order they are never seen, and do not. With replacement, draws count. A ``DistributedSampler`` deals to
each of several processes its share of one data set, which counts as a whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from bayesprune.errors import DataError


@dataclass(frozen=True)
class Count:
    """What an epoch is of.

    Attributes:
        rows: of the training set, as far as an epoch is a pass over it; None where only a pass could tell.
        dealt: rows that the batches of one pass hold; None where it cannot be known.
        smallest: rows of the smallest batch; None where it cannot be known.
        sampled: an epoch is a sample, of a number of the user's own: the training set may be larger or
            smaller, and only the user can say.
    """

    rows: int | None
    dealt: int | None = None
    smallest: int | None = None
    sampled: bool = False


def rows_of_loader(loader: DataLoader[Any], place: str = "train") -> Count:
    """Count the rows of an epoch.

    Args:
        loader: any; batch samplers of one's own are run through once, without loading a row.
        place: of the rows, for messages.

    Raises:
        DataError: a batch sampler that can be run through only once.
    """
    if isinstance(loader.dataset, IterableDataset):
        return Count(_length(loader.dataset))
    batches = loader.batch_sampler
    if batches is None and isinstance(loader.sampler, BatchSampler):
        batches = loader.sampler  # the data set itself makes a batch of a list of numbers
    if batches is None:
        return Count(None)
    if type(batches) is BatchSampler:
        return _of_sampler(batches.sampler, batches.batch_size, batches.drop_last)
    return _run_through(batches, place)


def _of_sampler(sampler: Any, batch_size: int, drop_last: bool) -> Count:
    rows = _length(sampler)
    if rows is None:
        return Count(None)
    dealt = rows // batch_size * batch_size if drop_last else rows
    left = 0 if drop_last else rows % batch_size
    smallest = left or min(batch_size, dealt)
    if drop_last and type(sampler) is SequentialSampler:
        rows = dealt
    if isinstance(sampler, DistributedSampler):
        rows = _shared_out(sampler, dealt)
    return Count(rows, dealt, smallest, _is_sample(sampler))


def _shared_out(sampler: Any, dealt: int) -> int:
    """Rows of the data set that all processes see together; of a fixed order some may never be seen."""
    rows = len(sampler.dataset)
    return rows if sampler.shuffle else min(rows, dealt * int(sampler.num_replicas))


def _is_sample(sampler: Any) -> bool:
    """Whether an epoch is no plain pass: drawn with replacement, or of a number that was asked for."""
    if isinstance(sampler, RandomSampler):
        return sampler.replacement or sampler.num_samples != len(sampler.data_source)
    return isinstance(sampler, WeightedRandomSampler)


def _run_through(batches: Any, place: str) -> Count:
    with _generators_kept(batches):
        passed = iter(batches)
        if passed is batches:
            raise DataError(
                f"{place}: the loader's batch_sampler can be run through only once: give one whose __iter__ "
                "starts anew, such as a list of lists of row numbers."
            )
        sizes = [len(list(batch)) for batch in passed]
    return Count(sum(sizes), sum(sizes), min(sizes, default=0))


@contextlib.contextmanager
def _generators_kept(sampler: Any) -> Iterator[None]:
    """Random states, torch's own and those that a sampler or the samplers in it hold, as they were before."""
    inner = [sampler, *getattr(sampler, "__dict__", {}).values()]
    held = [v for part in inner for v in getattr(part, "__dict__", {}).values()]
    generators = [v for v in held if isinstance(v, torch.Generator)]
    states = [generator.get_state() for generator in generators]
    with torch.random.fork_rng(devices=[]):
        yield
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)


def _length(value: Any) -> int | None:
    try:
        return len(value)
    except (TypeError, NotImplementedError):
        return None
