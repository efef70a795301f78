"""Which operations of a graph a module ran: every call of a module is a stretch of the graph.

A graph has no modules any more. Where one of them is to be taken out of it, it has to be known where the
module began and ended, what it was given and what it returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, fx, nn

from bayesprune.rows.nested import Leaf, taken_apart

FIRST = Leaf(0)
"""One tensor, and nothing else."""


@dataclass(frozen=True)
class Called:
    """One call of a module.

    Attributes:
        module: its name.
        first: number of its first operation, in ``Calls.order``.
        end: the number behind the last of them.
        given: names of the values that the tensors in its arguments are; None where that is not known.
        arguments: the trees of its arguments by position and by name.
        returned: names of the values that it returns; None where that is not known.
        results: the tree of what it returns.
    """

    module: str
    first: int
    end: int
    given: tuple[str, ...] | None = None
    arguments: Any = ((FIRST,), {})
    returned: tuple[str, ...] | None = None
    results: Any = FIRST


@dataclass(frozen=True)
class Calls:
    """All calls of modules in a graph.

    Attributes:
        order: names of the graph's nodes as they were traced.
        calls: those that returned, the innermost first.
    """

    order: tuple[str, ...] = ()
    calls: tuple[Called, ...] = ()

    def once(self, module: str) -> Called | None:
        """The call of a module that is called once; None of any other."""
        found = [call for call in self.calls if call.module == module]
        return found[0] if len(found) == 1 else None

    def inside(self, call: Called) -> frozenset[str]:
        """Names of the nodes that a call made."""
        return frozenset(self.order[call.first : call.end])

    def agreeing(self, other: Calls) -> Calls:
        """Those of modules whose arguments and results hang together alike in another run."""
        ours, theirs = _forms(self.calls), _forms(other.calls)
        return Calls(self.order, tuple(c for c in self.calls if ours[c.module] == theirs.get(c.module)))


def _forms(calls: Iterable[Called]) -> dict[str, list[Any]]:
    """Name of a module → how its calls hang together."""
    found = dict[str, list[Any]]()
    for call in calls:
        found.setdefault(call.module, []).append((call.arguments, call.results))
    return found


@dataclass
class Calling:
    """Notes the calls of modules while operations are recorded.

    Args:
        graph: that operations are written into.
        node: gives the node of a tensor; None where it has none.
        names: module → its name.
    """

    graph: fx.Graph
    node: Callable[[Tensor], fx.Node | None]
    names: Mapping[nn.Module, str]
    running: list[tuple[fx.Node, tuple[str, ...] | None, Any]] = field(default_factory=list)
    done: list[tuple[fx.Node, fx.Node, Called]] = field(default_factory=list)

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A module is called."""
        leaves, tree = taken_apart((args, kwargs))
        self.running.append((self._latest(), self._named(leaves), tree))

    def leave(self, module: nn.Module, args: Any, kwargs: Any, returned: Any) -> None:
        """It has returned."""
        before, given, arguments = self.running.pop()
        leaves, results = taken_apart(returned)
        call = Called(self.names[module], 0, 0, given, arguments, self._named(leaves), results)
        self.done.append((before, self._latest(), call))

    def calls(self) -> Calls:
        """All of them, when everything has been recorded."""
        order = {node: number for number, node in enumerate(self.graph.nodes)}
        found = (
            replace(call, first=order[before] + 1, end=order[latest] + 1)
            for before, latest, call in self.done
        )
        return Calls(tuple(node.name for node in order), tuple(found))

    def _latest(self) -> fx.Node:
        latest: fx.Node = next(iter(reversed(self.graph.nodes)))
        return latest

    def _named(self, leaves: list[Any]) -> tuple[str, ...] | None:
        nodes = [self.node(leaf) if isinstance(leaf, Tensor) else None for leaf in leaves]
        return None if None in nodes else tuple(node.name for node in nodes if node is not None)


def calls_of_trace(graph: fx.Graph) -> Calls:
    """Calls in a graph of ``torch.export``'s, which notes of every node the modules that it is inside of.

    What a module was given and returned is not noted there.
    """
    names = tuple(node.name for node in graph.nodes)
    spans = dict[str, tuple[str, int, int]]()
    for number, node in enumerate(graph.nodes):
        for key, (module, _) in (node.meta.get("nn_module_stack") or {}).items():
            first = spans[key][1] if key in spans else number
            spans[key] = module, first, number + 1
    return Calls(names, tuple(Called(*span) for span in spans.values()))
