"""The operations that one module ran, taken out of the graph of its network after a cut."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from bayesprune.rows.call import CallForm, parameters_of
from bayesprune.structure.graph.analysis.sections import stand_ins
from bayesprune.structure.graph.capture.called import Called, Calls
from bayesprune.structure.graph.capture.capture import Inputs, find_tensor
from bayesprune.structure.graph.capture.unmultiplied import Products
from bayesprune.structure.plain.written import copy_written_

aten = torch.ops.aten

Seen = Mapping[str, Any]
"""Name of a value → its shape, or the number that it is, in one run of a graph."""


class Tied(Exception):
    """A module's operations hang on more than what the module is given, or give more than it returns."""


@dataclass(frozen=True)
class Taken:
    """What a module runs.

    Attributes:
        graph: its operations.
        tensors: that they use, under the names that they have in the module, or as constants.
        results: tree of what the module returns.
        form: how it is called.
        given: names of the values, in the network's graph, that come in.
    """

    graph: fx.Graph
    tensors: Mapping[str, Tensor]
    results: Any
    form: CallForm
    given: tuple[str, ...]


def seen_in(graph: fx.GraphModule, inputs: Inputs) -> Seen:
    """Run a graph, and look at the shapes of its values, and at its numbers."""
    runner = _Looking(graph)
    runner.run(*(x.clone() for x in inputs))
    return runner.seen


def values_in(graph: fx.GraphModule, inputs: Inputs, names: Sequence[str]) -> dict[str, Tensor]:
    """Run a graph, and keep some of its values."""
    runner = _Looking(graph, names)
    runner.run(*(x.clone() for x in inputs))
    return runner.kept


class _Looking(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule, keep: Sequence[str] = ()) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.seen: dict[str, Any] = {}
        self.kept = dict[str, Tensor]()
        self.keep = keep
        self.products = Products(computed=bool(keep))  # shapes alone need no numbers

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """One operation."""
        return self.products.run(target, args, kwargs)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.seen[n.name] = tuple(value.shape)
            if n.name in self.keep:
                self.kept[n.name] = value.clone()
        elif isinstance(value, int | float):
            self.seen[n.name] = value
        return value


class Source:
    """The graph of a network after a cut, of which modules are taken.

    Args:
        graph: left alone.
        calls: which of its operations each module ran.
        network: that has the modules, and the tensors under the graph's names.
        runs: what was seen in runs on inputs of other rows, and of all sizes that may be others.
    """

    def __init__(self, graph: fx.GraphModule, calls: Calls, network: nn.Module, runs: Sequence[Seen]) -> None:
        self.graph, self.calls, self.network, self.runs = graph, calls, network, runs
        self.position = {node: number for number, node in enumerate(graph.graph.nodes)}
        self.nodes = {node.name: node for node in self.position}
        self.named = stand_ins(graph)
        self.traced = frozenset(calls.order)

    def taken(self, call: Called) -> Taken:
        """Take a module's operations out.

        Args:
            call: the module's one call.

        Raises:
            Tied: they cannot be taken out.
        """
        return _Taking(self, call).done()


class _Taking:
    """Goes back from what a module returns, to what it was given."""

    def __init__(self, source: Source, call: Called) -> None:
        self.source, self.call, self.runs = source, call, source.runs
        self.module = source.network.get_submodule(call.module)
        if not any(t.is_floating_point() for t in (*self.module.parameters(), *self.module.buffers())):
            raise Tied  # nothing says of which type its numbers are
        self.inside = source.calls.inside(call)
        self.own = [source.nodes[name] for name in self.inside if name in source.nodes]
        self.returned = self._leaving() if call.returned is None else self._values(call.returned)
        self.given = self._values(call.given or ())
        self.needed: set[fx.Node] = set()
        self.graph = fx.Graph()
        self.twins: dict[fx.Node, Any] = {}

    def done(self) -> Taken:
        """All of it."""
        self._go_back()
        form = self._form()
        for node, name in zip(self.given, form.names, strict=True):
            self.twins.setdefault(node, self.graph.placeholder(name))
        tensors: dict[str, Tensor] = {}
        for node in sorted(self.needed, key=self.source.position.__getitem__):
            self._copy(node, tensors)
        self.graph.output(tuple(self._twin(node) for node in self.returned))
        self.graph.eliminate_dead_code()
        copy_written_(self.graph)
        self.graph.lint()
        names = tuple(node.name for node in self.given)
        return Taken(self.graph, tensors, self.call.results, form, names)

    def _values(self, names: Sequence[str]) -> list[fx.Node]:
        if not all(name in self.source.named for name in names):
            raise Tied  # it is not computed any more, or in another place
        return [self.source.named[name] for name in names]

    def _leaving(self) -> list[fx.Node]:
        """The one value of a module that is read outside of it."""
        found = [n for n in self.own if not self._is_number(n) and any(map(self._outside, n.users))]
        if len(found) != 1:
            raise Tied
        return found

    def _outside(self, user: fx.Node) -> bool:
        """Whether who reads a value is outside of the module, or is read outside only because of a cut."""
        if user.op == "output" or user.name in self.source.traced:
            return user.name not in self.inside
        return any(map(self._outside, user.users))

    def _go_back(self) -> None:
        """Find the operations that are needed, and what comes in."""
        writes = [n for n in self.own if getattr(getattr(n.target, "_schema", None), "is_mutable", False)]
        coming, numbers = dict[fx.Node, None](), dict[fx.Node, None]()
        self._reach([*self.returned, *writes], coming, numbers)
        if self.call.given is None:
            self.given = list(coming)
        while numbers:
            node, _ = numbers.popitem()
            self.needed.add(node)
            if self._number(node) is None:
                if not (self._is_own(node) or all(map(self._is_number, node.all_input_nodes))):
                    raise Tied
                self._reach(node.all_input_nodes, coming, numbers)
        if set(coming) - set(self.given) or (self.call.given is None and len(self.given) != 1):
            raise Tied

    def _reach(self, left: list[fx.Node], coming: dict[fx.Node, None], numbers: dict[fx.Node, None]) -> None:
        """Add what values need, as far as the module computes it; put aside what comes in, and numbers."""
        while left:
            node = left.pop()
            if node in self.needed or node in self.given:
                continue
            if self._is_number(node):
                numbers[node] = None
            elif node.op == "get_attr" or self._is_own(node):
                self.needed.add(node)
                left += node.all_input_nodes
            else:
                coming[node] = None

    def _is_own(self, node: fx.Node) -> bool:
        """Whether the module ran an operation, or a cut has added it for one of them."""
        return node.name in self.inside or (
            node.op == "call_function" and node.name not in self.source.traced
        )

    def _form(self) -> CallForm:
        """How the module is called: sizes that have never been others are those of the example."""
        positional, named = self.call.arguments
        shapes = [[run[node.name] for run in self.runs] for node in self.given]
        sizes = [[s[0] if len(set(s)) == 1 else None for s in zip(*of, strict=True)] for of in shapes]
        names, defaults = parameters_of(self.module)
        names = names if named else names[: len(positional)]
        optional = tuple(n for n, value in named.items() if n in defaults and _is(value, defaults[n]))
        firsts = tuple(row[0] if row else None for row in sizes)
        behind = tuple(tuple(row[1:]) for row in sizes)
        return CallForm(positional, named, names, optional, behind, firsts if any(firsts) else ())

    def _is_number(self, node: fx.Node) -> bool:
        return isinstance(self.runs[0].get(node.name), int | float)

    def _number(self, node: fx.Node) -> Callable[[], Any] | None:
        """What makes a number of the sizes of what comes in; None where nothing does."""
        values = [run[node.name] for run in self.runs]
        if len(set(values)) == 1:
            return partial(_itself, values[0])
        if not all(isinstance(value, int) for value in values):
            return None
        sizes = {
            (given, dim): [run[given.name][dim] for run in self.runs]
            for given in self.given
            for dim in range(len(self.runs[0][given.name]))
        }
        for (given, dim), of in sizes.items():
            for sign, by in _steps(of[0], values[0]):
                if all(sign(size, by) == value for size, value in zip(of, values, strict=True)):
                    return partial(self._sized, given, dim, sign, by)
        return None

    def _sized(self, given: fx.Node, dim: int, sign: Callable[[int, int], int], by: int) -> fx.Node:
        size = self.graph.call_function(aten.sym_size.int, (self.twins[given], dim))
        return size if (sign, by) == (operator.add, 0) else self.graph.call_function(sign, (size, by))

    def _copy(self, node: fx.Node, tensors: dict[str, Tensor]) -> None:
        number = self._number(node) if self._is_number(node) else None
        if number is not None:
            self.twins[node] = number()
        elif node.op == "get_attr":
            name, tensor = self._tensor(str(node.target))
            tensors[name] = tensor
            self.twins[node] = self.graph.get_attr(name)
        else:
            self.twins[node] = self.graph.node_copy(node, self._twin)

    def _twin(self, node: fx.Node) -> Any:
        return self.twins[node]

    def _tensor(self, name: str) -> tuple[str, Tensor]:
        """A tensor, under the name that it has in the module, or as a constant."""
        tensor = find_tensor(self.source.network, name)
        if tensor is None:
            constant = find_tensor(self.source.graph, name)
            if constant is None:
                raise Tied  # a graph inside of the graph
            return name, constant
        for own, held in (
            *self.module.named_parameters(remove_duplicate=False),
            *self.module.named_buffers(remove_duplicate=False),
        ):
            if held is tensor:
                return own, tensor
        raise Tied  # another module's


def _steps(size: int, value: int) -> Iterator[tuple[Callable[[int, int], int], int]]:
    """What may lead from a size to a number."""
    yield operator.add, value - size
    if size:
        yield operator.mul, value // size
    if 0 < value <= size:
        yield operator.floordiv, size // value


def _itself(number: Any) -> Any:
    return number


def _is(value: Any, default: Any) -> bool:
    return (
        type(value) is type(default) and bool(value == default) and not isinstance(value, tuple | list | dict)
    )
