"""rows_from(): whichever form of rows a user holds, as Rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from bayesprune.errors import DataError
from bayesprune.ranges import is_whole
from bayesprune.rows.arrays import is_array
from bayesprune.rows.batched import Batched
from bayesprune.rows.call import Call
from bayesprune.rows.form import Form
from bayesprune.rows.items import Items
from bayesprune.rows.memory import InMemory
from bayesprune.rows.pairs import pair_of
from bayesprune.rows.rows import Rows

Source = Any
"""A pair (inputs, targets) of tensors or numpy arrays; anything with such attributes ``x`` and ``y``; a
data set of PyTorch; a DataLoader; or a stream: whatever yields batches each time it is iterated over."""


def rows_from(
    source: Source,
    place: str,
    *,
    rows: int | None = None,
    targets: bool = True,
    form: Form | None = None,
    batch_size: int = 1000,
) -> Rows:
    """Rows in the form in which the user holds them.

    Args:
        source: see ``Source``; where targets are not needed, inputs alone will do.
        place: what the rows are to the caller, for messages, such as "train".
        rows: of the training set, where they cannot be counted.
        targets: whether they are needed.
        form: that a row's inputs must have, or None.
        batch_size: rows of a batch, for data sets that can only be iterated over.

    Returns:
        The rows; those in memory have been checked, others are checked as they come.

    Raises:
        DataError: something else, or rows that are not whole, or not of the form; or ``rows`` is not what
            was counted.

    Example:
        >>> import numpy as np
        >>> found = rows_from((np.zeros((6, 2), "float32"), np.arange(6)), "train")
        >>> found.count, found.steps(batch_size=4)
        (6, 1)
    """
    if rows is not None and not (is_whole(rows) and rows > 0):
        raise DataError(f"rows={rows!r} must be a whole number, at least 1: the rows of the training set.")
    if isinstance(source, IterableDataset):
        source = DataLoader(source, batch_size=batch_size)
    if isinstance(source, DataLoader):
        return Batched(source, place, rows, targets, form)
    found = _in_memory(source, place, targets, form) or _items(source, place, targets, form)
    if found is None:
        return Batched(_stream(source, place), place, rows, targets, form)
    if rows not in (None, found.count):
        raise DataError(f"{place}: rows={rows} was said, and there are {found.count}. Leave rows= out.")
    return found


def _in_memory(source: Any, place: str, targets: bool, form: Form | None) -> Rows | None:
    if isinstance(source, TensorDataset):
        source = source.tensors
    elif not hasattr(source, "__getitem__") and is_array(getattr(source, "x", None)):
        source = (source.x, source.y) if getattr(source, "y", None) is not None else source.x
    if not (is_array(source) or isinstance(source, Call | Mapping | tuple | list)):
        return None
    by_rows = isinstance(source, list) and len(source) > 2 and isinstance(source[0], tuple)
    if isinstance(source, list) and source and (by_rows or not _is_part(source[0])):
        raise DataError(
            f"{place}: a list of {len(source)} {type(source[0]).__name__}. Give a pair (inputs, targets) of "
            "tensors, or DataLoader(your_list) if it is a data set row by row."
        )
    x, y = pair_of(source, place, targets, form)
    return InMemory(x, y, place)


def _is_part(value: Any) -> bool:
    """Whether a value can be inputs: an array, or a dict or tuple of arrays."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else [value]
    return all(map(is_array, parts))


def _items(source: Any, place: str, targets: bool, form: Form | None) -> Rows | None:
    fits = hasattr(source, "__getitem__") and not isinstance(source, str | bytes | nn.Module)
    if not fits:
        return None
    try:
        len(source)
    except (TypeError, NotImplementedError):
        raise DataError(
            f"{place}: {type(source).__name__} has rows by number and does not say how many: give it "
            "__len__, or a DataLoader with a sampler."
        ) from None
    return Items(source, place, targets, form)


def _stream(source: Any, place: str) -> Iterable[Any]:
    if isinstance(source, Iterable) and not isinstance(source, str | bytes | nn.Module):
        if iter(source) is not source:
            return source
        raise DataError(
            f"{place}: {type(source).__name__} can be run through only once, and every epoch is a pass. Give "
            "an object whose __iter__ starts anew, such as a DataLoader or an IterableDataset."
        )
    remedy = "data.train or data.test" if hasattr(source, "train") else "a pair (inputs, targets) of tensors"
    raise DataError(
        f"{place}: {type(source).__name__} holds no rows. Give {remedy}, numpy arrays, a torch Dataset, or a "
        "DataLoader."
    )
