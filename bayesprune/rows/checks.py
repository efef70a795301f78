"""Whether rows are whole: as many targets as inputs, and finite numbers; looked at block by block."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesprune.errors import DataError
from bayesprune.rows.call import Inputs

BLOCKS, LEAST = 256, 2**12
"""Blocks that a check is split into, and numbers of a block at the least: what is allocated for a comparison
is then less than a hundredth of the data, or a few kilobytes."""

MOST = 2**20
"""Numbers of a block at the most."""


def rows_of_block(tensor: Tensor) -> int:
    """How many rows are looked at together."""
    row = max(tensor[:1].numel(), 1)
    numbers = min(max(tensor.numel() // BLOCKS, LEAST), MOST)
    return max(numbers // row, 1)


def check_whole(x: Inputs, y: Tensor | None, place: str) -> None:
    """Inputs and targets must be of the same rows, at least one, and finite.

    Args:
        x: (rows, ...), inputs.
        y: (rows, ...), targets, or None.
        place: of the rows, for messages.

    Raises:
        DataError: they are not; the first row that is not finite is named.
    """
    if y is not None and len(x) != len(y):
        raise DataError(f"{place}: {len(x)} rows of inputs and {len(y)} of targets: every row needs both.")
    if not len(x):
        raise DataError(f"{place}: no rows. Give at least one.")
    if isinstance(x, Tensor):
        check_finite(x, f"{place}: the inputs")
    else:
        for name, tensor in zip(x.form.names, x.tensors, strict=True):
            if len(tensor) != len(x):
                raise DataError(
                    f"{place}: {name!r} has {len(tensor)} rows, and {x.form.names[0]!r} {len(x)}: give each "
                    "as many."
                )
            check_finite(tensor, f"{place}: the inputs {name!r}")
    if y is not None:
        check_finite(y, f"{place}: the targets")


def check_finite(tensor: Tensor, place: str) -> None:
    """A tensor must hold finite numbers.

    Args:
        tensor: (rows, ...).
        place: of the tensor, for messages.

    Raises:
        DataError: it holds NaN or infinity; the first such row is named.
    """
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return
    if bool(torch.isfinite(tensor.sum())):  # of what is not finite no sum is; and this one takes no memory
        return
    start = 0
    for block in tensor.split(rows_of_block(tensor)):
        if not bool(torch.isfinite(block).all()):
            broken = (~torch.isfinite(block)).reshape(len(block), -1).any(1)
            row = start + int(broken.nonzero()[0])
            raise DataError(f"{place} hold NaN or infinity, first in row {row}: clean or drop such rows.")
        start += len(block)
