"""What training data are, in a few digits, so that a checkpoint is never continued on others."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

BLOCK = 1 << 20
"""Bytes that are checked at once."""
HELD = ("data", "targets", "labels", "x", "y")
"""Attributes in which datasets that hold all their rows in memory have them, torchvision's among others."""


def describe_rows(train: Any) -> dict[str, Any]:
    """What is known of training data, as plain values: equal for equal data.

    Of tensors and arrays, and of datasets that hold theirs in memory (``TensorDataset``, torchvision's
    MNIST or CIFAR, and subsets of such), every byte counts. Of any other dataset nothing is known but its
    kind and its number of rows: reading it all would take as long as an epoch.

    Args:
        train: what ``fit`` was given.

    Example:
        >>> x, y = torch.zeros(4, 2), torch.zeros(4)
        >>> one = describe_rows((x, y))
        >>> describe_rows((x.clone(), y)) == one, describe_rows((x + 1, y)) == one
        (True, False)
    """
    if isinstance(train, DataLoader):
        sampler = train.sampler
        return {
            "batch": train.batch_size,
            "drop_last": train.drop_last,
            "sampler": type(sampler).__name__,
            "rows_sampled": len(sampler) if isinstance(sampler, Sized) else None,
            "dataset": describe_rows(train.dataset),
        }
    parts = list(_parts(train, ""))
    if parts:
        return {place or "rows": _digest(values) for place, values in parts}
    return {"kind": type(train).__name__, "rows": len(train) if isinstance(train, Sized) else None}


def _parts(data: Any, place: str) -> Iterator[tuple[str, Any]]:
    """All tensors and arrays of a data set, each with its place."""
    inner: Mapping[str, Any] = {}
    if isinstance(data, Tensor) or (isinstance(data, np.ndarray) and data.dtype != object):
        yield place, data
    elif isinstance(data, Mapping):
        inner = {str(name): part for name, part in data.items()}
    elif isinstance(data, TensorDataset):
        inner = dict(_numbered(data.tensors))
    elif isinstance(data, Subset):
        inner = {"of": data.dataset, "indices": data.indices}
    elif isinstance(data, ConcatDataset):
        inner = dict(_numbered(data.datasets))
    elif isinstance(data, Sequence) and not isinstance(data, str):
        inner = _of_sequence(data)
    else:  # attributes that are there, and no property that would have to be computed
        inner = {name: value for name, value in getattr(data, "__dict__", {}).items() if name in HELD}
    for name, part in inner.items():
        yield from _parts(part, f"{place}.{name}" if place else name)


def _of_sequence(data: Sequence[Any]) -> dict[str, Any]:
    """Few tensors, or many numbers."""
    if data and all(isinstance(value, int | float) for value in (data[0], data[-1])):
        return {"values": np.asarray(data)}
    return dict(_numbered(data)) if len(data) <= 16 else {}


def _numbered(parts: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Each part with its number as a name."""
    return ((str(number), part) for number, part in enumerate(parts))


def _digest(values: Tensor | np.ndarray[Any, Any]) -> str:
    """Type, shape, and a CRC-32 of every block of rows, under one hash: as fast as memory is read."""
    array = values.detach() if isinstance(values, Tensor) else values
    found = hashlib.sha256(f"{array.dtype} {list(array.shape)}".encode())
    if not array.ndim:
        array = array.reshape(1)
    rows, numel = len(array), int(np.prod(array.shape))
    size = array.element_size() if isinstance(array, Tensor) else array.itemsize
    step = max(1, BLOCK // max(1, size * numel // max(rows, 1)))
    for start in range(0, rows if numel else 0, step):
        found.update(zlib.crc32(_bytes(array[start : start + step])).to_bytes(4, "little"))
    return found.hexdigest()[:16]


def _bytes(block: Tensor | np.ndarray[Any, Any]) -> Any:
    if isinstance(block, Tensor):
        return block.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return np.ascontiguousarray(block).reshape(-1).view(np.uint8).data
