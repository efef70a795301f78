"""Digests of rows, by which a row that is used twice is found: of its numbers, whatever their layout or type.

Two sets are compared in the coarsest type that holds every number of one of them exactly: what was rounded to
a type on its way is found among what was not, and whole numbers among floats.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bayesprune.rows.call import Inputs

Digests = npt.NDArray[np.uint64]

TYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
}
"""Types that numbers are compared in, the coarsest first."""
BLOCK = 2**20
"""Numbers at a time: rounding needs no copy of all rows."""
FEW = 16
MOST = 200_000_000
"""Numbers that are digested without being asked to; 60,000 rows of 784 are 47 million."""
_WHOLE = {2: "<i2", 4: "<i4", 8: "<i8"}


def numbers_of(x: Inputs) -> Tensor:
    """(rows, numbers), of rows of any layout; of complex numbers both parts; of several tensors all of them.

    Args:
        x: (rows, ...).
    """
    if not isinstance(x, Tensor):  # in the one type that holds integers and both kinds of floats
        return torch.cat([numbers_of(part).double() for part in x.tensors], 1)
    x = x.detach().cpu()
    x = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    return x.reshape(len(x), -1) if len(x) else x.reshape(0, x[:0].numel())


def coarsest(x: Tensor) -> str:
    """The coarsest type that holds every number exactly.

    Args:
        x: (rows, numbers).

    Example:
        >>> third, whole = torch.tensor([[1 / 3]]), torch.tensor([[255]], dtype=torch.uint8)
        >>> coarsest(third), coarsest(third.half().double()), coarsest(whole)
        ('float32', 'float16', 'bfloat16')
    """
    return next((name for name in TYPES if _holds(name, x)), "float64")


def digests_in(x: Tensor, name: str) -> Digests:
    """A digest of every row, its numbers rounded to a type: the first eight bytes of their SHA-256.

    Args:
        x: (rows, numbers); zeros of either sign are the same.
        name: of the type.

    Returns:
        (rows,), uint64. Two different rows share one with probability 2⁻⁶⁴.
    """
    size, found = x.shape[1] * TYPES[name].itemsize, []
    for block in _blocks(x):
        whole = (block.to(TYPES[name]) + 0.0).view(getattr(torch, f"int{8 * TYPES[name].itemsize}"))
        content = memoryview(whole.numpy().astype(_WHOLE[TYPES[name].itemsize], copy=False).tobytes())
        found += [hashlib.sha256(content[i * size : (i + 1) * size]).digest()[:8] for i in range(len(block))]
    return np.frombuffer(b"".join(found), dtype="<u8").astype(np.uint64)


def repeated(x: Inputs) -> npt.NDArray[np.bool_]:
    """(rows,), whether a row equals one before it.

    Args:
        x: (rows, ...).

    Example:
        >>> repeated(torch.tensor([[1.0], [0.0], [1.0], [-0.0]])).tolist()
        [False, False, True, True]
    """
    numbers = numbers_of(x)
    digests = digests_in(numbers, coarsest(numbers))
    again = np.ones(len(digests), dtype=np.bool_)
    again[np.unique(digests, return_index=True)[1]] = False
    return again


def known_by(x: Inputs) -> Digests | None:
    """Digests by which rows are known again, whichever type they come in: of their numbers in float32.

    Args:
        x: (rows, ...).

    Returns:
        (rows,), sorted; None of more numbers than are read in a second or so.
    """
    numbers = numbers_of(x)
    return None if numbers.numel() > MOST else np.sort(digests_in(numbers, "float32"))


def found_among(x: Inputs, known: Digests) -> npt.NDArray[np.bool_]:
    """(rows,), whether each of these rows is one that is known.

    Args:
        x: (rows, ...).
        known: of ``known_by``.

    Example:
        >>> known = known_by(torch.tensor([[1.0], [2.0]]))
        >>> found_among(torch.tensor([[2.0], [3.0]]).double(), known).tolist()
        [True, False]
    """
    return np.isin(digests_in(numbers_of(x), "float32"), known)


def _holds(name: str, x: Tensor) -> bool:
    if x.dtype == TYPES[name]:
        return True
    few = x[:FEW]  # which nearly always tell it
    return all(bool((block.to(TYPES[name]).double() == block.double()).all()) for block in (few, *_blocks(x)))


def _blocks(x: Tensor) -> list[Tensor]:
    """Parts of some rows each; a list of views, which copy nothing."""
    return list(x.split(max(1, BLOCK // max(1, x.shape[1]))))
