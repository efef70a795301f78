"""What a row of inputs looks like: its shape and type, as a network was gated on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesprune.errors import DataError

_CALLS = {torch.float32: ".float()", torch.float64: ".double()", torch.int64: ".long()"}


@dataclass(frozen=True)
class RowForm:
    """Shape and type that the inputs of a row must have.

    Numbers are never cast: a float64 that becomes a float32 may fall together with its neighbour (times in
    seconds, identifiers), and an integer loses its meaning; the remedy is one call of the user's.

    Attributes:
        shape: sizes of a row's dimensions; None where any size will do.
        dtype: of the numbers.
    """

    shape: tuple[int | None, ...]
    dtype: torch.dtype

    @staticmethod
    def of(example: Tensor, free: Iterable[int] = ()) -> RowForm:
        """The form of an example's rows.

        Args:
            example: (rows, ...).
            free: dimensions of the example that may have another size.
        """
        loose = set(free)
        sizes = enumerate(tuple(example.shape)[1:], start=1)
        return RowForm(tuple(None if dim in loose else size for dim, size in sizes), example.dtype)

    def check(self, x: Tensor, place: str) -> None:
        """Rows must have this form.

        Args:
            x: (rows, ...), inputs.
            place: of the rows, for messages.

        Raises:
            DataError: they have another shape or type; both are named, and what to give instead.
        """
        wrong = []
        found = tuple(x.shape)[1:]
        if len(found) != len(self.shape) or any(
            size not in (None, there) for size, there in zip(self.shape, found, strict=True)
        ):
            wrong.append(
                f"a row has shape {found}, and one of the network's example {self._told()}: give rows of "
                "that shape, or such an example"
            )
        if x.dtype != self.dtype:
            call = _CALLS.get(self.dtype, f".to({self.dtype})")
            wrong.append(f"they have type {x.dtype}, and the network's example {self.dtype}: give x{call}")
        if wrong:
            raise DataError(f"{place}: the inputs do not fit the network: {'; '.join(wrong)}.")

    def _told(self) -> str:
        sizes = ["any" if size is None else str(size) for size in self.shape]
        return f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(sizes)})"
