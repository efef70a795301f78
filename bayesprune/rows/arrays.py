"""From what a user holds to tensors over the same memory, or a refusal that names what to give instead."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesprune.errors import DataError


def is_array(value: Any) -> bool:
    """Whether a value is a tensor or a numpy array."""
    return isinstance(value, Tensor | np.ndarray)


def tensor_of(value: Any, place: str) -> Tensor:
    """A dense tensor (rows, ...) over the memory of a tensor or of a numpy array.

    Args:
        value: what the user gave.
        place: of it, for messages, such as "train: the inputs".

    Raises:
        DataError: it is something else, or holds no numbers of its own.
    """
    if isinstance(value, np.ndarray):
        value = _from_numpy(value, place)
    if not isinstance(value, Tensor):
        remedy = "value.to_numpy()" if hasattr(value, "to_numpy") else "torch.tensor(value)"
        raise DataError(
            f"{place} are {type(value).__name__}: give a tensor or a numpy array, such as {remedy}."
        )
    if value.layout is not torch.strided or value.is_nested or value.is_quantized:
        kind = "nested" if value.is_nested else "quantized" if value.is_quantized else str(value.layout)
        remedy = ".dequantize()" if value.is_quantized else ".to_dense()"
        if value.is_nested:
            remedy = ".to_padded_tensor(0.0)"
        raise DataError(f"{place} are a tensor of layout {kind}, and rows are dense: give them {remedy}.")
    if value.device.type == "meta":
        raise DataError(f"{place} are on device 'meta', which holds no numbers: load them on 'cpu'.")
    if not value.ndim:
        raise DataError(f"{place} are a single number, and need a dimension of rows: (rows, ...).")
    return value.detach()


def _from_numpy(array: np.ndarray[Any, Any], place: str) -> Tensor:
    try:
        with warnings.catch_warnings():  # of arrays that may not be written to: nobody here writes to them
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(array)
    except (TypeError, ValueError) as problem:
        raise DataError(
            f"{place} are a numpy array of type {array.dtype} that no tensor can share ({problem}): "
            "give np.ascontiguousarray(array), of a type such as 'float32' or 'int64'."
        ) from problem


def pair_of(batch: Any, place: str, targets: bool = True) -> tuple[Tensor, Tensor | None]:
    """Inputs and targets of a batch, or of a whole data set.

    Args:
        batch: a pair; where targets are not needed, inputs alone will do.
        place: of the batch, for messages.
        targets: whether they are needed.

    Raises:
        DataError: a dict, a triple, inputs alone, or parts that are no arrays.
    """
    if isinstance(batch, Mapping):
        keys = ", ".join(map(repr, list(batch)[:6]))
        raise DataError(
            f"{place}: a dict with the keys {keys}, and rows are pairs (inputs, targets). Take two values "
            "out of it, (d['x'], d['y']); in a DataLoader by collate_fn=."
        )
    parts = list(batch) if isinstance(batch, tuple | list) else [batch]
    if len(parts) > 2:
        raise DataError(
            f"{place}: {len(parts)} parts, and rows are pairs (inputs, targets). Put what belongs to the "
            "inputs into one tensor (torch.cat), and what belongs to the targets likewise; in a DataLoader "
            "by collate_fn=."
        )
    if not parts or (len(parts) == 1 and targets):
        found = "inputs alone" if parts and is_array(parts[0]) else f"{type(batch).__name__}"
        raise DataError(f"{place}: {found}, and rows are pairs (inputs, targets). Give (x, y).")
    x = tensor_of(parts[0], f"{place}: the inputs")
    y = tensor_of(parts[1], f"{place}: the targets") if len(parts) == 2 else None
    return x, y
