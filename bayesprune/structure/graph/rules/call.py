"""One operation of a graph, with the labels of what it reads, and what a rule may say about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx

from bayesprune.structure.graph.rules.labels import FIXED, Labels, along, compact, spread, varies
from bayesprune.structure.plain.operators import allow

Place = tuple[str, int]
"""A dimension of a parameter or buffer, whose indices have labels."""


Argument = tuple[fx.Node, str, int | None]
"""An operation, the name of one of its arguments, and the position in it where that is a list."""


@dataclass(frozen=True)
class Raw:
    """A parameter or buffer, or what is made of some alone: every dimension has labels of its own.

    Activations have one label a number; a weight's rows and columns are units of different kinds.

    Attributes:
        name: in the network; of the first parameter, where several were put together.
        shape: of the value.
        dims: for every dimension of the value whose indices run along it; None where they are nobody's.
    """

    name: str
    shape: torch.Size
    dims: tuple[Place | None, ...]

    def along(self, labels: Labels, dim: int) -> Tensor:
        """(size,), labels along a dimension of the value."""
        place = self.dims[dim]
        if place is None:
            return torch.zeros(self.shape[dim], dtype=torch.long)
        return labels.of(*place, self.shape[dim])

    def permuted(self, order: list[int]) -> Raw:
        """The value with its dimensions in another order."""
        shape = torch.Size(self.shape[d] for d in order)
        return replace(self, shape=shape, dims=tuple(self.dims[d] for d in order))

    def long_dims(self) -> list[int]:
        """Dimensions of more than one index."""
        return [d for d, size in enumerate(self.shape) if size > 1]

    def without(self, dims: set[int], shape: torch.Size) -> Raw:
        """A value of another shape whose indices along some dimensions are nobody's any more."""
        return Raw(self.name, shape, tuple(None if d in dims else place for d, place in enumerate(self.dims)))


@dataclass(frozen=True)
class Read:
    """An operation that sums over units: where their gates multiply.

    Attributes:
        node: the operation.
        source: the value that the gates multiply, one of its arguments.
        dim: the dimension of that value that the units run along.
        labels: (size,), the units.
        place: (parameter, dimension) whose index they are, where the operation has a weight.
    """

    node: fx.Node
    source: fx.Node
    dim: int
    labels: Tensor
    place: Place | None


@dataclass
class Findings:
    """What the rules have found in one graph.

    Attributes:
        labels: the places and their unions, shared by both graphs.
        reads: where gates multiply.
        norms: norms and other operations across units whose statistics are those of the open ones.
        pads: paddings that add units → labels of the added ones, before and after.
        expanded: expansions of a parameter → dimension → labels of the indices that it makes.
        selected: an argument that belongs to no unit → (its dimension, labels of the units that it meets
            there): a cut network reads it at the units that are left.
        refilled: an argument that is read unit by unit → (its dimension, labels): a cut network puts zeros
            where units have gone.
        inside: labels of units whose gates an operation has inside.
        lengths: (v, g, dimension) of parameters of which g v / ‖v‖ is computed, by name.
        of: node → labels of its value, in a structure like the value's; ``Raw`` for parameters.
        sizes: node → shape of its value, where that is a tensor.
        rows: name of a value → (dimension that rows run along, inner and outer repeats).
        constants: node → its value, where that is a number or a tensor of integers.
        example_rows: how many rows the example has.
        learnt: names of parameters; other tensors are buffers.
        coarsest: the floating type of least precision that is computed with.
        branches: residual sections, by the parameters that only they use.
        group_counts: grouped convolution or norm → (its groups,), the label of each group's first channel.
        mirrored: whether they are those of the other mode's graph, said of a graph that does the same.
    """

    labels: Labels
    reads: list[Read] = field(default_factory=list)
    norms: list[Read] = field(default_factory=list)
    pads: dict[fx.Node, tuple[Tensor, Tensor]] = field(default_factory=dict)
    expanded: dict[fx.Node, dict[int, Tensor]] = field(default_factory=dict)
    example_rows: int = 2
    learnt: frozenset[str] = frozenset()
    coarsest: torch.dtype = torch.float64
    selected: dict[Argument, tuple[int, Tensor]] = field(default_factory=dict)
    refilled: dict[Argument, tuple[int, Tensor]] = field(default_factory=dict)
    inside: list[Tensor] = field(default_factory=list)
    lengths: set[tuple[str, str, int]] = field(default_factory=set)
    of: dict[fx.Node, Any] = field(default_factory=dict)
    sizes: dict[fx.Node, torch.Size] = field(default_factory=dict)
    rows: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    constants: dict[fx.Node, Any] = field(default_factory=dict)
    group_counts: dict[fx.Node, Tensor] = field(default_factory=dict)
    branches: dict[frozenset[str], tuple[Any, frozenset[str]]] = field(default_factory=dict)
    mirrored: bool = False


@dataclass(frozen=True)
class Call:
    """An operation that has just been run.

    Attributes:
        node: the operation in its graph.
        args: its arguments' values, by the name that the operation's schema gives them.
        known: the same arguments' labels: a tensor for a tensor, ``Raw`` for a parameter, lists of them.
        result: what it returned.
        findings: where to write down what follows.
        place: how a message names it.
    """

    node: fx.Node
    args: dict[str, Any]
    known: dict[str, Any]
    result: Any
    findings: Findings
    place: str

    @property
    def shape(self) -> torch.Size:
        """Of the (first) result."""
        result = self.result[0] if isinstance(self.result, tuple | list) else self.result
        return result.shape  # type: ignore[no-any-return]

    @property
    def labels(self) -> Labels:
        """The store of labels."""
        return self.findings.labels

    def units(self, name: str, dim: int) -> Tensor:
        """(size,), the units along a dimension of an argument that is no parameter; 0 is nobody's.

        Units that run along other dimensions too become one where they share an index of this one.
        """
        return united(self, self.known[name], dim)

    def spread(self, units: Tensor, dim: int) -> Tensor:
        """Labels of the result where units run along one of its dimensions."""
        return spread(units, dim, self.shape)

    def tensors(self) -> Iterator[tuple[str, Tensor | Raw, Tensor]]:
        """Name, labels and value of every tensor argument."""
        for name, known in self.known.items():
            if isinstance(known, Tensor | Raw):
                yield name, known, self.args[name]
            elif isinstance(known, list | tuple):
                for label, value in zip(known, self.args[name], strict=True):
                    if isinstance(label, Tensor | Raw):
                        yield name, label, value

    def fixed(self, like: Any = None) -> Any:
        """Labels of a result that belongs to no unit."""
        result = self.result if like is None else like
        if isinstance(result, Tensor):
            return torch.zeros((), dtype=torch.long).expand(result.shape)
        if isinstance(result, tuple | list):
            return [self.fixed(part) if part is not None else None for part in result]
        return None

    def freeze(self, labels: Tensor | Raw, reason: str) -> None:
        """Say that what is read here may not be removed."""
        if isinstance(labels, Raw):
            for dim in labels.long_dims():
                self.labels.freeze(labels.along(self.labels, dim), self.place, reason)
        else:
            self.labels.freeze(labels, self.place, reason)

    def join(self, first: Tensor, second: Tensor, reason: str = "it meets what is fixed") -> None:
        """Say that labels are the same units; those that meet ``FIXED`` are frozen."""
        first, second = torch.broadcast_tensors(first, second)
        both = (first != FIXED) & (second != FIXED)
        if bool(both.all()):
            self.labels.unite(first, second)
            return
        if bool(both.any()):
            self.labels.unite(first[both], second[both])
        self.labels.freeze(first[~both], self.place, reason)
        self.labels.freeze(second[~both], self.place, reason)

    def read(self, name: str, dim: int, labels: Tensor, weight: Raw | None = None, column: int = 1) -> None:
        """Note that this operation sums over units along a dimension of one of its arguments."""
        source = argument_node(self.node, name)
        if source is not None and not is_fixed(labels):
            place = weight.dims[column] if weight is not None else None
            dim %= self.args[name].ndim
            self.findings.reads.append(Read(self.node, source, dim, labels, place))

    def weighs(self, name: str, dim: int, labels: Tensor) -> None:
        """Note that under gates this operation is that of the open units alone, along a dimension."""
        source = argument_node(self.node, name)
        assert source is not None
        dim %= self.args[name].ndim
        self.findings.norms.append(Read(self.node, source, dim, labels, None))

    def freeze_along(self, raw: Raw, dims: set[int], reason: str) -> None:
        """Say that a parameter's indices along some dimensions may not be removed."""
        for dim in dims & set(raw.long_dims()):
            self.labels.freeze(raw.along(self.labels, dim), self.place, reason)
            place = raw.dims[dim]
            if place is not None:
                self.labels.whole.add(place)

    def select(self, name: str, dim: int, labels: Tensor, at: int | None = None) -> None:
        """Note that an argument that belongs to no unit meets units along one of its dimensions.

        Args:
            name: of the argument.
            dim: the dimension.
            labels: (size,), the units along it, which may be one of rows too.
            at: position in the argument, where that is a list.
        """
        if not is_fixed(labels):
            ndim = (self.args[name] if at is None else self.args[name][at]).ndim
            self.findings.selected[self.node, name, at] = (dim % ndim, labels)

    def _by_rows(self, labels: Tensor) -> bool:
        """Whether units along a dimension come once for each row of the example."""
        rows = self.findings.example_rows
        if len(labels) % rows:
            return False
        outer, inner = labels.view(rows, -1), labels.view(-1, rows)
        return bool((outer == outer[:1]).all()) or bool((inner == inner[:, :1]).all())

    def meet(self, name: str, dim: int, labels: Tensor, at: int | None = None) -> None:
        """Say that the indices of an argument along one dimension are those units, whatever it is."""
        known = self.known.get(name)
        known = known[at] if at is not None and known is not None else known
        if isinstance(known, Raw):
            own = dim % len(known.shape)
            self.join(labels, known.along(self.labels, own))
            self.freeze_along(known, set(known.long_dims()) - {own}, "its units run along another dimension")
        elif isinstance(known, Tensor) and is_fixed(known):
            self.select(name, dim, labels, at)
        elif isinstance(known, Tensor):
            self.join(labels, united(self, known, dim))

    def refill(self, reason: str) -> Any:
        """Read every unit in its own place, with zeros where units have gone; parameters stay whole.

        For operations that mix units by their positions: what is read then has the same shape before and
        after a cut, so that any operation is exact. Not for what may be asked for its largest entry, or its
        loss: there a zero is an answer.

        Args:
            reason: why parameters, and units along several dimensions, stay.

        Returns:
            Labels of a result that belongs to no unit.
        """
        aliased = any(value.alias_info is not None for value in self.node.target._schema.returns)  # type: ignore[union-attr]
        for name, at, known in self._parts():
            units = varying(known) if isinstance(known, Tensor) else set()
            vector = along(known, next(iter(units))) if len(units) == 1 and not aliased else None  # type: ignore[arg-type]
            given = arguments(self.node).get(name)
            source = given if at is None else given[at]  # type: ignore[index]
            if vector is None or self._by_rows(vector) or not isinstance(source, fx.Node):
                self.freeze(known, reason)
                continue
            dim = units.pop()
            self.findings.refilled[self.node, name, at] = (dim, vector)
            self.findings.reads.append(Read(self.node, source, dim, vector, None))
        return self.fixed()

    def _parts(self) -> Iterator[tuple[str, int | None, Tensor | Raw]]:
        """Name, position and labels of every argument, in lists too, that is a parameter or has units."""
        for name, known in self.known.items():
            parts = enumerate(known) if isinstance(known, list | tuple) else [(None, known)]
            for at, part in parts:
                if isinstance(part, Raw) or (isinstance(part, Tensor) and not is_fixed(part)):
                    yield name, at, part

    def activations(self, parameters: frozenset[str]) -> Call:
        """The same call with parameters where its rule takes them, and nowhere else.

        Parameters in other places stay whole, and what is read there belongs to no unit.

        Args:
            parameters: names of the arguments in which the rule takes them.
        """
        known = {
            name: part if name in parameters else self._fixed_parameters(part, self.args[name])
            for name, part in self.known.items()
        }
        return replace(self, known=known)

    def _fixed_parameters(self, known: Any, value: Any) -> Any:
        if isinstance(known, Raw):
            if value.is_floating_point():  # others are indices and masks
                self.freeze(known, "it is a parameter in a place where the rule of this operation takes none")
            return self.fixed(value)
        if isinstance(known, list | tuple):
            return [self._fixed_parameters(part, whole) for part, whole in zip(known, value, strict=True)]
        return known

    def frozen_everything(self, reason: str) -> Any:
        """Freeze all that is read; the result is fixed."""
        for _, known, _ in self.tensors():
            self.freeze(known, reason)
        return self.fixed()


def arguments(node: fx.Node) -> dict[str, Any]:
    """An operation's arguments by name, as far as they were given."""
    return dict(zip(schema_names(node), node.args, strict=False)) | dict(node.kwargs)


def argument_node(node: fx.Node, name: str) -> fx.Node | None:
    """The node that an operation's argument of that name is."""
    value = arguments(node).get(name)
    return value if isinstance(value, fx.Node) else None


def schema_names(node: fx.Node) -> list[str]:
    """Names of an operation's arguments, in order."""
    return [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]


def operation(call: Call) -> str:
    """The operation's name without its overload: ``'aten.linear'``."""
    return str(call.node.target._schema.name).replace("::", ".").rstrip("_")  # type: ignore[union-attr]


Rule = Callable[[Call], Any]

RULES: dict[str, tuple[Rule, frozenset[str]]] = {}
"""Name of an operation (``'aten.linear'``) → its rule, and in which arguments that takes parameters."""


def rule(*names: str, parameters: Iterable[str] = ()) -> Callable[[Rule], Rule]:
    """Register a rule for operations by name, whatever their overload.

    An operation of your own (``torch.library.custom_op``) can then be pruned, saved and loaded, by programs
    that have imported its rule. A later rule for the same operation takes the place of an earlier one.

    Args:
        names: ``'aten::linear'``; for an operation of your own ``'mylib::scale'``.
        parameters: arguments whose labels the rule takes as ``Raw`` where a parameter or buffer stands there.
            In all others a parameter stays whole, and the rule sees numbers that belong to no unit.

    Returns:
        A decorator for a function of one ``Call``, which returns the labels of the result.
    """

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name.replace("::", ".")] = function, frozenset(parameters)
            allow(name.replace(".", "::"))
        return function

    return register


def is_fixed(labels: Tensor) -> bool:
    """Whether no unit is among the labels."""
    return not bool((compact(labels) != FIXED).any())


def varying(labels: Tensor) -> set[int]:
    """Dimensions along which labels differ."""
    return {dim for dim, differs in enumerate(varies(labels)) if differs}


CROSSES = "its units run along several dimensions"


def united(call: Call, x: Tensor, dim: int) -> Tensor:
    """(size,), labels along one dimension; those that differ along others become one unit."""
    vector, dim = along(x, dim), dim % x.ndim
    if vector is not None:
        return vector
    if dim not in varying(x):
        call.freeze(x, CROSSES)
        return torch.zeros(x.shape[dim], dtype=torch.long)
    small = compact(x)
    first = small[tuple(slice(None) if d == dim else slice(0, 1) for d in range(x.ndim))]
    call.join(small, first)
    return first.expand([x.shape[d] if d == dim else 1 for d in range(x.ndim)]).reshape(-1)
