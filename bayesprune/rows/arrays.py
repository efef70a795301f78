"""From what a user holds to tensors over the same memory, or a refusal that names what to give instead."""

from __future__ import annotations

import warnings
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
