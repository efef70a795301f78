"""What a network is called with: one notion for a tensor, a tuple, or a dict of keyword arguments, nested."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from bayesprune.errors import DataError
from bayesprune.rows.arrays import is_array, tensor_of
from bayesprune.rows.nested import Leaf, leaf_names, put_together, taken_apart

TAKEN = ("self", "gates", "noise")
"""Names that no input of a graph can have."""


@dataclass(frozen=True)
class CallForm:
    """How a network is called: which arguments by position and by name, and what is in them.

    Attributes:
        positional: the tree of each argument by position.
        named: the tree of each argument by name.
        parameters: names of ``forward``'s parameters that can be given by position, as far as they have any.
        optional: names of constants that are what ``forward`` takes without them.
        sizes: of each tensor's dimensions behind the rows; None where any will do; empty where all will.
        firsts: of each tensor's first dimension, where that is not the rows: a part of a network is given
            tables too; None where any will do; empty where all will.
        names: of the tensors, one for each, in order; no two alike.
        plain: one tensor after the other, by position.
    """

    positional: tuple[Any, ...]
    named: Mapping[str, Any]
    parameters: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    sizes: tuple[tuple[int | None, ...], ...] = ()
    firsts: tuple[int | None, ...] = ()
    names: tuple[str, ...] = field(init=False)
    plain: bool = field(init=False)

    def __post_init__(self) -> None:
        first = dict(enumerate(self.parameters))
        several = len(self.positional) > 1
        places = {first.get(n, f"x{n}" if several else "x"): p for n, p in enumerate(self.positional)}
        object.__setattr__(self, "names", _distinct(leaf_names({**places, **self.named})))
        plain = not self.named and all(isinstance(part, Leaf) for part in self.positional)
        object.__setattr__(self, "plain", plain)

    def tensors(self, positional: Sequence[Any], named: Mapping[str, Any], place: str) -> tuple[Tensor, ...]:
        """The tensors of a call of this form.

        What the form has by position may come by name, and the other way round.

        Args:
            positional: arguments.
            named: arguments.
            place: of the call, for messages.

        Raises:
            DataError: an argument is missing, is not in the form, or is built otherwise; it is named.
        """
        as_ever = self.plain and not named and len(positional) == len(self.positional)
        if as_ever and all(isinstance(x, Tensor) for x in positional):
            return self.checked(positional, place)
        positional, named = self._sorted(positional, named, place)
        found: list[Tensor] = []
        first = dict(enumerate(self.parameters))
        for number, (tree, value) in enumerate(zip(self.positional, positional, strict=True)):
            _match(tree, value, first.get(number, f"argument {number}"), place, found)
        named = {name: self.named[name] for name in self.optional if name not in named} | named
        _match(dict(self.named), named, "", place, found)
        return self.checked(found, place)

    def checked(self, tensors: Sequence[Tensor], place: str) -> tuple[Tensor, ...]:
        """The tensors, if each has the sizes that the network was traced with where it must.

        Raises:
            DataError: one has not; it is named.
        """
        firsts = self.firsts or (None,) * len(self.sizes)
        for name, x, first, sizes in zip(self.names, tensors, firsts, self.sizes, strict=False):
            if len(sizes) != x.ndim - 1:
                shape = ", ".join("any" if size is None else str(size) for size in sizes)
                raise DataError(
                    f"{place}: {name!r} has shape {tuple(x.shape)}, and in the network's example a row has "
                    f"({shape}): give such rows."
                )
            for dim, size in enumerate((first, *sizes)):
                if size is not None and size != x.shape[dim]:
                    raise DataError(
                        f"{place}: {name!r} has size {x.shape[dim]} in dimension {dim}, and this network was "
                        f"traced at {size}, which is written into its operations: give {size} (pad, crop or "
                        "resize), or trace it anew with an example of the other size."
                    )
        return tuple(tensors)

    def is_called_as(self, other: CallForm) -> bool:
        """Whether arguments and constants are the same, whatever the sizes."""
        return self is other or (self.positional == other.positional and self.named == other.named)

    def at(self, tensors: Sequence[Tensor]) -> CallForm:
        """The same form for tensors of exactly these sizes."""
        return replace(self, sizes=tuple(tuple(x.shape[1:]) for x in tensors))

    def _sorted(
        self, positional: Sequence[Any], named: Mapping[str, Any], place: str
    ) -> tuple[list[Any], dict[str, Any]]:
        """The same arguments, by position and by name as the form has them."""
        count, left = len(self.positional), dict(named)
        first, over = list(positional[:count]), positional[count:]
        names = self.parameters[count:]
        if len(over) > len(names) or left.keys() & set(self.parameters[: len(positional)]):
            raise DataError(
                f"{place}: {len(positional)} arguments by position and {', '.join(left) or 'none'} by name; "
                f"the network's example has {self.told()}: give those."
            )
        left |= dict(zip(names, over, strict=False))
        for name in self.parameters[len(first) : count]:
            if name in left:
                first.append(left.pop(name))
        if len(first) < count:
            raise DataError(
                f"{place}: {len(positional)} arguments by position; the network's example has {self.told()}: "
                "give all of them."
            )
        return first, left

    def arguments(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments by position and by name, with these tensors in their places."""
        if self.plain:
            return tuple(tensors), {}
        positional = tuple(put_together(tree, tensors) for tree in self.positional)
        return positional, {name: put_together(tree, tensors) for name, tree in self.named.items()}

    def told(self) -> str:
        """The inputs' names, for messages."""
        return ", ".join(self.names)


@dataclass(frozen=True, eq=False)
class Call:
    """Inputs of a network that are more than one tensor: their tensors have the same rows, first.

    It is indexed, counted and moved as a tensor of rows is.

    Attributes:
        tensors: (rows, ...) each.
        form: where each goes.
    """

    tensors: tuple[Tensor, ...]
    form: CallForm

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, rows: Any) -> Call:
        return self.mapped(lambda x: x[rows])

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Call:
        """The same call with other tensors."""
        return Call(tuple(change(x) for x in self.tensors), self.form)

    def to(self, device: Any, non_blocking: bool = False) -> Call:
        """On a device."""
        return self.mapped(lambda x: x.to(device, non_blocking=non_blocking))

    def index_select(self, dim: int, index: Tensor) -> Call:
        """Some of the rows; ``dim`` is 0."""
        return self.mapped(lambda x: x.index_select(dim, index))

    def split(self, rows: int) -> Iterator[Call]:
        """Block by block."""
        for start in range(0, len(self), rows):
            yield self[start : start + rows]

    def clone(self) -> Call:
        """Copies of the tensors."""
        return self.mapped(Tensor.clone)

    def twice(self) -> Call:
        """Every row, and every row again."""
        return self.mapped(lambda x: torch.cat([x, x]))

    def detach(self) -> Call:
        """Without gradients."""
        return self.mapped(Tensor.detach)

    @property
    def alone(self) -> Inputs:
        """The tensor itself, where it is one by position."""
        return self.tensors[0] if self.form.plain and len(self.tensors) == 1 else self

    @property
    def device(self) -> torch.device:
        """Of the first tensor."""
        return self.tensors[0].device

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments by position and by name."""
        return self.form.arguments(self.tensors)

    def on(self, network: Callable[..., Any], **more: Any) -> Any:
        """Call a network with these inputs."""
        positional, named = self.arguments()
        return network(*positional, **named, **more)

    def told(self) -> str:
        """Names, shapes and types, for messages."""
        named = zip(self.form.names, self.tensors, strict=True)
        return " and ".join(f"{name} {tuple(x.shape)}, {x.dtype}" for name, x in named)


Inputs: TypeAlias = Tensor | Call
"""Inputs (rows, ...) of a network: the tensor itself where there is one, by position."""


def run(network: Callable[..., Any], inputs: Inputs, **more: Any) -> Any:
    """Call a network.

    Args:
        network: or anything else that takes its inputs.
        inputs: (rows, ...).
        more: arguments by name that are no inputs.
    """
    return network(inputs, **more) if isinstance(inputs, Tensor) else inputs.on(network, **more)


def joined(parts: Sequence[Inputs]) -> Inputs:
    """Rows one after the other.

    Args:
        parts: of the same form.
    """
    if all(isinstance(part, Tensor) for part in parts):
        return torch.cat(parts)  # type: ignore[arg-type]
    calls = [part for part in parts if isinstance(part, Call)]
    return Call(tuple(torch.cat(xs) for xs in zip(*(c.tensors for c in calls), strict=True)), calls[0].form)


def call_of(network: nn.Module, example: Any, place: str = "example") -> Call:
    """An example as a call of a network.

    Args:
        network: its ``forward`` says which parameters can be given by position.
        example: (rows, ...), a tensor or numpy array: the one argument; a tuple: arguments by position; a
            mapping: arguments by name. They may hold more tuples and dicts of tensors, and constants.
        place: of the example, for messages.

    Raises:
        DataError: it holds no tensor, or something that is none, or tensors of unequal or no rows.
    """
    if isinstance(example, Call):
        return example
    if isinstance(example, list):  # a batch that a DataLoader has stacked, maybe, targets and all
        raise _no_inputs(example, place)
    return call_given(example, place, *parameters_of(network))


def call_given(
    inputs: Any, place: str, parameters: tuple[str, ...] = (), defaults: Mapping[str, Any] | None = None
) -> Call:
    """Inputs in the form in which a user has them, as a call.

    Args:
        inputs: as in ``call_of``.
        place: of them, for messages.
        parameters: of ``forward``, that can be given by position.
        defaults: of ``forward``'s parameters.

    Raises:
        DataError: as in ``call_of``.
    """
    tensors, (tree, names) = taken_apart(tensors_in(given(inputs), place))
    if not tensors:
        raise _no_inputs(inputs, place)
    known = defaults or {}
    optional = tuple(key for key, part in names.items() if key in known and _is(part, known[key]))
    parameters = parameters if names else parameters[: len(tree)]
    call = Call(tuple(tensors), CallForm(tree, names, parameters, optional))
    _check_rows(call, place)
    return call


def _no_inputs(value: Any, place: str) -> DataError:
    return DataError(
        f"{place}: {type(value).__name__}. Give a batch that the network accepts: a tensor (rows, ...), such "
        "as x[:2]; a dict of arguments by name; or a tuple, one for each argument of forward."
    )


def given(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments by position and by name, of inputs in the form in which a user has them."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs), {}) if isinstance(inputs, tuple | list) else ((inputs,), {})


def parameters_of(network: nn.Module) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Names of the parameters of a network's ``forward`` that can be given by position; and all defaults."""
    known: Any = getattr(network, "call_form", None)  # a graph takes what the network took that it was
    if isinstance(known, CallForm):
        return known.parameters, {name: known.named[name] for name in known.optional}
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(network.forward).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    return tuple(p.name for p in parameters if p.kind in by_position), defaults


def _is(tree: Any, value: Any) -> bool:
    """Whether a tree is a constant, and that one."""
    return type(tree) is type(value) and tree == value and not isinstance(tree, tuple | list | dict)


def tensors_in(value: Any, place: str) -> Any:
    """The same with every array as a tensor; what may not stand in inputs is refused."""
    if is_array(value):
        return tensor_of(value, f"{place}: the inputs")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): tensors_in(part, place) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(tensors_in(part, place) for part in value))
    if isinstance(value, tuple | list):
        return type(value)(tensors_in(part, place) for part in value)
    raise DataError(
        f"{place}: a {type(value).__name__} among the inputs. Give tensors (rows, ...), in tuples and dicts "
        "where there are several."
    )


def _check_rows(call: Call, place: str) -> None:
    rows = {name: len(x) for name, x in zip(call.form.names, call.tensors, strict=True)}
    if len(set(rows.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise DataError(
            f"{place}: its tensors have unequal numbers of rows: {told}. Give each as many, in its first "
            "dimension; what is the same for all rows belongs into a buffer of the network."
        )


def _match(tree: Any, value: Any, name: str, place: str, found: list[Tensor]) -> None:
    """Append a value's tensors where the tree has leaves; another build is refused."""
    of = f" of {name!r}" if name else ""
    if isinstance(tree, Leaf):
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise DataError(
                f"{place}: {name!r} is a {kind}, and in the network's example a tensor: give one."
            )
        found.append(value)
    elif isinstance(tree, dict):
        entries = dict(value) if isinstance(value, Mapping) else {}
        absent = [key for key, part in tree.items() if key not in entries and part is not None]
        strange = [key for key, part in entries.items() if key not in tree and part is not None]
        if absent or strange or not isinstance(value, Mapping):
            raise DataError(f"{place}: {_difference(tree, value, absent, strange, of)}")
        for key, part in tree.items():
            _match(part, entries.get(key), f"{name}.{key}" if name else key, place, found)
    elif isinstance(tree, tuple | list):
        if not isinstance(value, tuple | list) or len(value) != len(tree):
            size = f"{len(value)} parts" if isinstance(value, tuple | list) else f"a {type(value).__name__}"
            raise DataError(
                f"{place}: the inputs{of} are {size}, and in the network's example {len(tree)}: give as many."
            )
        for number, (part, there) in enumerate(zip(tree, value, strict=True)):
            _match(part, there, f"{name}[{number}]", place, found)
    elif tree is not value and tree != value:
        raise DataError(
            f"{place}: {name!r} is {_short(value)}, and was {tree!r} in the network's example, by which it "
            "was traced: give that, or an example with the other."
        )


def _difference(tree: Any, value: Any, absent: list[str], strange: list[str], of: str) -> str:
    if not isinstance(value, Mapping):
        kind = type(value).__name__
        return f"the inputs{of} are a {kind}, and in the network's example a dict of {', '.join(tree)}."
    told = [f"{what} {', '.join(map(repr, keys))}" for what, keys in
            (("lack", absent), ("have", strange)) if keys]  # fmt: skip
    return (
        f"the inputs{of} {' and '.join(told)}, and the network's example has {', '.join(map(repr, tree))}: "
        "give those, or an example with the same names."
    )


def _short(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:60]


def _distinct(names: list[str]) -> tuple[str, ...]:
    """Names that can stand in Python, no two alike."""
    found: list[str] = []
    for name in names:
        clean = re.sub(r"\W", "_", name)
        clean = clean if clean.isidentifier() and clean not in TAKEN else f"x_{clean}"
        while clean in found:
            clean += "_"
        found.append(clean)
    return tuple(found)
