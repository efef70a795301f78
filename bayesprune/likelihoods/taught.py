"""Targets that bring along what a teacher says of their rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Taught(Tensor):
    """Targets, and beside them what a teacher says of the same rows.

    To whoever does not ask for the teacher it is the targets, as a tensor; what is computed from it is a
    plain one. Rows are taken of both, and both are moved together.

    Attributes:
        said: (rows, ...), the teacher's outputs, without a gradient.

    Example:
        >>> rows = Taught.of(torch.tensor([2, 0, 1]), torch.eye(3))
        >>> rows[1:].tolist(), rows[1:].said.shape
        ([0, 1], torch.Size([2, 3]))
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    said: Tensor

    @staticmethod
    def of(targets: Tensor, said: Tensor) -> Taught:
        """Over the memory of both.

        Args:
            targets: (rows, ...).
            said: (rows, ...), of the same rows.
        """
        taught: Taught = targets.detach().as_subclass(Taught)
        taught.said = said
        return taught

    def __getitem__(self, rows: Any) -> Taught:
        return Taught.of(super().__getitem__(rows), self.said[rows])

    def index_select(self, dim: Any, index: Tensor) -> Taught:
        """Some of the rows; ``dim`` is 0."""
        return Taught.of(super().index_select(dim, index), self.said.index_select(dim, index))

    def to(self, *args: Any, **settings: Any) -> Taught:
        """On a device."""
        return Taught.of(super().to(*args, **settings), self.said.to(*args, **settings))
