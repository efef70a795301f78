"""What multiplies units by their gates: at the input of a reader, and inside a layer norm."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ByGroup(Protocol):
    """Gates by group, and by position among all."""

    def of_group(self, name: str, units: int) -> Tensor | None:
        """Gates of a group's living units, where they lie by themselves."""

    def are_open(self, groups: frozenset[str]) -> bool:
        """Whether none of these groups has gates."""

    def index_select(self, dim: int, columns: Tensor) -> Tensor:
        """Gates by position."""


Gates = Tensor | ByGroup


class UnitGates(nn.Module):
    """The gates of the units along one dimension of a value, in the shape that they multiply it in.

    Args:
        columns: (size,), position of each index' unit among all gates; the last gate is always one.
        dim: the dimension that the units run along.
        rows: the dimension that the rows run along; None where there is no such dimension.
        inner: how often a row comes, one after the other, along that dimension.
        outer: how often the whole sequence of rows comes.
        owners: (size,), position of the gate of the channel that each index is a feature of, which multiplies
            it too; None where none is one.
        group: name of the group whose living units these are, all of them and in order; None where they are
            other ones.
        groups: names of all groups that they and their owners are of; None where nobody said.
    """

    columns: Tensor
    owners: Tensor | None

    def __init__(
        self,
        columns: Tensor,
        dim: int,
        rows: int | None,
        inner: int,
        outer: int,
        owners: Tensor | None = None,
        group: str | None = None,
        groups: frozenset[str] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("owners", owners, persistent=False)
        self.dim, self.rows, self.inner, self.outer = dim, rows, inner, outer
        self.group, self.groups, self.size = group, groups, len(columns)
        self.plain = (dim, rows, inner, outer) == (1, 0, 1, 1)  # rows, then units, as gates come

    def are_open(self, gates: Gates | None) -> bool:
        """Whether no unit has a gate, so that the plain operation is what is to be computed."""
        if gates is None:
            return True
        return self.groups is not None and not isinstance(gates, Tensor) and gates.are_open(self.groups)

    def spread(self, ndim: int, gates: Gates) -> Tensor:
        """Gates in a shape that broadcasts against the value.

        Args:
            ndim: of the value.
            gates: (units + 1,) for all rows alike, or (rows, units + 1), or by group.

        Returns:
            ``ndim`` dimensions, of size one but for units and rows.
        """
        z = None
        if self.group is not None and not isinstance(gates, Tensor):
            z = gates.of_group(self.group, self.size)
        z = gates.index_select(-1, self.columns) if z is None else z
        if self.owners is not None:
            z = z * gates.index_select(-1, self.owners)
        if self.plain and z.ndim == 2:
            return z if ndim == 2 else z.reshape(z.shape + (1,) * (ndim - 2))
        shape = [1] * ndim
        shape[self.dim] = self.size
        if z.ndim == 2 and len(z) > 1:
            if self.rows is None:
                raise ValueError("rows have no dimension of their own here: give the same gates to all rows.")
            if self.inner > 1:
                z = z.repeat_interleave(self.inner, 0)
            if self.outer > 1:
                z = z.repeat(self.outer, 1)
            shape[self.rows] = len(z)
            if self.rows > self.dim:
                z = z.T
        return z.reshape(shape)


class Direct(nn.Module):
    """A part of our own in a graph: nobody hooks it, and it runs at every step, so it is called as it is."""

    def __call__(self, *inputs: Any) -> Any:
        """Run it, without the detour that hooks take."""
        return self.forward(*inputs)


class Gate(Direct, UnitGates):
    """Multiplies units by their gates: ``y = x · z``.

    Example:
        >>> gate = Gate(torch.tensor([0, 1]), dim=1, rows=0, inner=1, outer=1)
        >>> gate(torch.ones(3, 2), torch.tensor([0.0, 1.0, 1.0]))[0]
        tensor([0., 1.])
    """

    def forward(self, x: Tensor, gates: Gates | None) -> Tensor:
        """Multiply.

        Args:
            x: (...), what a reader reads.
            gates: (units + 1,) for all rows alike, or (rows, units + 1); None leaves ``x`` as it is.

        Returns:
            The same shape and type, which need not be that of the parameters.
        """
        if self.are_open(gates):
            return x
        assert gates is not None
        return (x * self.spread(x.ndim, gates)).to(x.dtype)


class WeightedNorm(UnitGates):
    """Layer norm, or its root-mean-square form, whose statistics are those of the open units.

    With z the gates, m = Σ z x / Σ z and v = Σ z (x − m)² / Σ z: at gates of zero and one exactly what a
    plain norm over the open units alone computes, so that units can be cut out of it. The root-mean-square
    form has m = 0.

    Args:
        gates: where its units are.
        centred: whether the mean is subtracted.
        eps: added to v.
    """

    def __init__(self, gates: UnitGates, centred: bool, eps: float) -> None:
        rows = (gates.rows, gates.inner, gates.outer)
        super().__init__(gates.columns, gates.dim, *rows, gates.owners, gates.group, gates.groups)
        self.centred, self.eps = centred, eps

    def forward(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, gates: Gates | None) -> Tensor:
        """Normalise over the last dimension.

        Args:
            x: (..., units).
            weight: (units,), scale after it.
            bias: (units,), shift after it.
            gates: as in ``Gate``; None means all open.

        Returns:
            The same shape.
        """
        size = x.shape[-1:]
        if self.are_open(gates):
            if self.centred:
                return F.layer_norm(x, size, weight, bias, self.eps)
            return F.rms_norm(x, size, weight, self.eps)
        assert gates is not None
        z, dtype = self.spread(x.ndim, gates), x.dtype
        total = z.sum(-1, keepdim=True)
        z = z / total.masked_fill(total == 0, 1.0)  # all closed: a mean of nothing is zero
        if self.centred:
            x = x - (z * x).sum(-1, keepdim=True)
        y = x * torch.rsqrt((z * x.square()).sum(-1, keepdim=True) + self.eps)
        y = y if weight is None else y * weight
        return (y if bias is None else y + bias).to(dtype)
