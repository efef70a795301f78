"""What a row of inputs looks like: its shape and type, as a network was gated on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bayesprune.errors import DataError
from bayesprune.rows.arrays import tensor_of
from bayesprune.rows.call import Call, CallForm, Inputs, call_given, given, tensors_in

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

    def read(self, inputs: Any, place: str) -> Tensor:
        """Inputs as a tensor.

        Args:
            inputs: what the user gave.
            place: of the rows, for messages.

        Raises:
            DataError: they are no tensor, or of another shape or type; both are named, and what to give
                instead.
        """
        x = tensor_of(inputs, f"{place}: the inputs")
        self.check(x, place)
        return x

    def moved(self, before: torch.dtype, now: torch.dtype) -> RowForm:
        """The form when a network's numbers are of another type."""
        return replace(self, dtype=now) if self.dtype == before else self

    def check(self, x: Tensor, place: str, name: str = "the inputs") -> None:
        """Rows must have this form.

        Args:
            x: (rows, ...), inputs.
            place: of the rows, for messages.
            name: of the tensor, for messages.

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
            do = "do" if name == "the inputs" else "does"
            raise DataError(f"{place}: {name} {do} not fit the network: {'; '.join(wrong)}.")

    def _told(self) -> str:
        sizes = ["any" if size is None else str(size) for size in self.shape]
        return f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(sizes)})"


@dataclass(frozen=True)
class CallRows:
    """How a network is called, and the form of the rows of each tensor.

    Attributes:
        call: arguments by position and by name.
        rows: of each tensor.
    """

    call: CallForm
    rows: tuple[RowForm, ...]

    @staticmethod
    def of(example: Call) -> CallRows:
        """The form of an example."""
        return CallRows(example.form, tuple(RowForm.of(x) for x in example.tensors))

    def read(self, inputs: Any, place: str) -> Call:
        """Inputs as a call.

        Args:
            inputs: what the user gave: a tensor, a tuple or list of arguments, or a dict of them by name.
            place: of the rows, for messages.

        Raises:
            DataError: they are built otherwise than the example, or a tensor has another shape or type; it is
                named.
        """
        if isinstance(inputs, Call) and inputs.form == self.call:
            call = inputs
        else:
            whole = inputs.arguments() if isinstance(inputs, Call) else given(inputs)
            positional, named = tensors_in(whole, place)
            call = Call(self.call.tensors(positional, named, place), self.call)
        self.check(call, place)
        return call

    def moved(self, before: torch.dtype, now: torch.dtype) -> CallRows:
        """The form when a network's numbers are of another type."""
        return replace(self, rows=tuple(form.moved(before, now) for form in self.rows))

    def check(self, x: Call, place: str) -> None:
        """Each tensor must have its form.

        Raises:
            DataError: one has not; it is named.
        """
        for form, name, tensor in zip(self.rows, self.call.names, x.tensors, strict=True):
            form.check(tensor, place, repr(name))


@dataclass(frozen=True)
class Form:
    """What a batch of rows is: inputs of a form, and a target that a dict of both has under a name.

    Attributes:
        inputs: what inputs must be; None for what the user gives.
        target: the name of the targets in a dict of inputs and targets.
        among: whether the targets are among the inputs too, as for a network that computes its own loss.
    """

    inputs: RowForm | CallRows | None = None
    target: str = "labels"
    among: bool = False

    @staticmethod
    def of(inputs: RowForm | CallRows, target: str) -> Form:
        """That of a network whose example is known."""
        among = isinstance(inputs, CallRows) and target in inputs.call.named
        return Form(inputs, target, among)

    def read(self, inputs: Any, place: str) -> Inputs:
        """Inputs as one tensor, or as a call.

        Raises:
            DataError: they have not the form.
        """
        if self.inputs is not None:
            return self.inputs.read(inputs, place)
        if isinstance(inputs, Call):
            return inputs
        if not isinstance(inputs, tuple | list | dict) and not hasattr(inputs, "keys"):
            return tensor_of(inputs, f"{place}: the inputs")
        return call_given(inputs, place)

    def moved(self, before: torch.dtype, now: torch.dtype) -> Form:
        """The form when a network's numbers are of another type."""
        return self if self.inputs is None else replace(self, inputs=self.inputs.moved(before, now))
