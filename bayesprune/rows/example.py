"""Examples: a few rows of inputs, by which a network is run, traced or counted."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bayesprune.errors import DataError
from bayesprune.rows.call import Call, call_of
from bayesprune.rows.checks import check_finite


def example_call(network: nn.Module, example: Any) -> Call:
    """An example as a call of a network, with at least one row.

    Args:
        network: that is called.
        example: (rows, ...), a tensor or numpy array; a tuple of them, one for each argument of ``forward``;
            or a dict of arguments by name; nested.

    Raises:
        DataError: it is something else, or has no rows.
    """
    call = call_of(network, example)
    for x in call.tensors:
        if not len(x):
            raise DataError(f"example: no rows, shape {tuple(x.shape)}. Give at least one, such as x[:1].")
        if x.ndim == 1 and (x.is_floating_point() or x.is_complex()) and len(call.tensors) == 1:
            raise DataError(
                f"example: shape {tuple(x.shape)}, and no dimension of rows beside it. Give (rows, ...): "
                "x.unsqueeze(0) is one row."
            )
    return call


def finite_example(network: nn.Module, example: Any) -> Call:
    """As ``example_call``, of finite numbers.

    Raises:
        DataError: it is none, or not finite.
    """
    call = example_call(network, example)
    for name, x in zip(call.form.names, call.tensors, strict=True):
        which = f" {name!r}" if len(call.tensors) > 1 else ""
        check_finite(x, f"example: the inputs{which}")
    return call


def one_input_of(network: nn.Module, example: Any) -> Tensor:
    """The input of a network that takes one, by position.

    Raises:
        DataError: it is something else, several, or not finite.
    """
    call = finite_example(network, example)
    if len(call.tensors) > 1 or not call.form.plain:
        raise DataError(f"example: {call.told()}, and one tensor is wanted here. Give (rows, ...).")
    return call.tensors[0]
