"""Examples: a few rows of inputs, by which a network is run, traced or counted."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bayesprune.errors import DataError
from bayesprune.rows.arrays import is_array, tensor_of
from bayesprune.rows.checks import check_finite


def inputs_of(example: Any) -> tuple[Tensor, ...]:
    """The inputs of a network, one for each argument of its ``forward``.

    Args:
        example: (rows, ...), a tensor or numpy array, or a tuple of them.

    Raises:
        DataError: it is something else, or has no rows.
    """
    parts = example if isinstance(example, tuple) else (example,)
    if not parts or not all(is_array(part) for part in parts):
        named = ", ".join(type(part).__name__ for part in parts) or "nothing"
        raise DataError(
            f"example: {named}. Give a batch that the network accepts: a tensor (rows, ...), such as x[:2], "
            "or a tuple of tensors, one for each argument of forward."
        )
    inputs = tuple(tensor_of(part, "example: the inputs") for part in parts)
    for x in inputs:
        if not len(x):
            raise DataError(f"example: no rows, shape {tuple(x.shape)}. Give at least one, such as x[:1].")
        if x.ndim == 1 and (x.is_floating_point() or x.is_complex()):
            raise DataError(
                f"example: shape {tuple(x.shape)}, and no dimension of rows beside it. Give (rows, ...): "
                "x.unsqueeze(0) is one row."
            )
    return inputs


def one_input_of(example: Any) -> Tensor:
    """The input of a network that takes one.

    Args:
        example: (rows, ...), a tensor or numpy array.

    Raises:
        DataError: it is something else, several, or not finite.
    """
    inputs = inputs_of(example)
    if len(inputs) > 1:
        raise DataError(
            f"example: {len(inputs)} tensors, and a gated network takes one. Give inputs alone, without "
            "targets; a network of several inputs goes into a module whose forward takes one tensor, "
            "torch.cat of them, and splits it."
        )
    check_finite(inputs[0], "example: the inputs")
    return inputs[0]
