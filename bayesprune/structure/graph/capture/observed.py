"""What modules were given and returned, where a graph of ``torch.export``'s does not say.

The network is run beside its graph, on the same inputs: the values in the graph that are those of a module's
arguments are what it is given. Numbers may be equal by chance; so they are compared on two batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from bayesprune.rows.nested import taken_apart
from bayesprune.structure.graph.capture.called import Called, Calls
from bayesprune.structure.graph.capture.masks import masks_as_given
from bayesprune.structure.graph.capture.recording import Inputs
from bayesprune.structure.running import drawing_alike, unmoved


@dataclass(frozen=True)
class _Call:
    """One call of a module, in one run: what it was given and returned, and how that hung together."""

    given: list[Any]
    arguments: Any
    returned: list[Any]
    results: Any

    @property
    def form(self) -> tuple[Any, Any]:
        return self.arguments, self.results


Values = Mapping[str, Any]
"""Name of a node → its value, in one run."""


def observed(calls: Calls, graph: fx.GraphModule, network: nn.Module, inputs: Inputs) -> Calls:
    """Calls with what each module was given and returned, as far as that can be told.

    Args:
        calls: of a graph that was traced.
        graph: that, for any number of rows.
        network: in the graph's mode; its tensors are afterwards what they were, also where its forward
            writes into its parameters.
        inputs: two rows of each.

    Returns:
        The calls; one of which it cannot be told is as it was.
    """
    batches = [inputs, tuple(torch.cat([x.roll(1, 0), x[:1]]) for x in inputs)]
    weights = [(p, p.detach().clone()) for p in network.parameters()]
    try:
        runs = [_run(graph, network, batch) for batch in batches]
    except Exception:  # a forward that hands a module what cannot be kept
        return calls
    finally:
        for parameter, values in weights:
            if not torch.equal(parameter, values):
                parameter.data.copy_(values)
    nodes = {node.name: node for node in graph.graph.nodes}
    number = {name: n for n, name in enumerate(calls.order)}

    def known(call: Called) -> Called:
        seen = [modules.get(call.module, []) for modules, _ in runs]
        values = [of for _, of in runs]
        if any(len(of) != 1 for of in seen) or calls.once(call.module) is None:
            return call
        one, other = (of[0] for of in seen)
        if one.form != other.form:
            return call
        inside = [nodes[name] for name in calls.order[call.first : call.end] if name in nodes]
        coming = _coming(inside, number, call.first, values[0])
        before = [name for name in reversed(calls.order[: call.first]) if name in nodes]
        given = _places(zip(one.given, other.given, strict=True), [*coming, *before], values)
        made = [node.name for node in reversed(inside)]
        returned = _places(zip(one.returned, other.returned, strict=True), [*made, *coming], values)
        if given is None or returned is None or not set(coming) <= set(given):
            return call
        return replace(call, given=given, arguments=one.arguments, returned=returned, results=one.results)

    return Calls(calls.order, tuple(map(known, calls.calls)))


def _coming(inside: Sequence[fx.Node], number: Mapping[str, int], first: int, values: Values) -> list[str]:
    """Names of the tensors from in front of a stretch of the graph that are read in it."""
    read = dict.fromkeys(argument for node in inside for argument in node.all_input_nodes)
    return [
        node.name
        for node in read
        if node.op != "get_attr" and number.get(node.name, first) < first
        and isinstance(values.get(node.name), Tensor)
    ]  # fmt: skip


def _places(
    leaves: Iterator[tuple[Any, Any]], names: Sequence[str], runs: Sequence[Values]
) -> tuple[str, ...] | None:
    """For each tensor the first of some nodes that has its value in all runs; None where one has none."""
    found = []
    for of in leaves:
        equal = (n for n in names if all(_equal(x, run.get(n)) for x, run in zip(of, runs, strict=True)))
        found.append(next(equal, ""))
    return tuple(found) if all(found) else None


def _equal(x: Any, y: Any) -> bool:
    """Whether two values are one tensor's, up to rounding."""
    if not isinstance(x, Tensor) or not isinstance(y, Tensor) or x.shape != y.shape or x.dtype != y.dtype:
        return False
    if not (x.is_floating_point() or x.is_complex()):
        return torch.equal(x, y)
    return torch.allclose(x, y, rtol=1e-4, atol=1e-6, equal_nan=True)


def _run(
    graph: fx.GraphModule, network: nn.Module, inputs: Inputs
) -> tuple[dict[str, list[_Call]], dict[str, Any]]:
    """Name of a module → its calls; and all values of the graph."""
    with unmoved(network), torch.no_grad(), masks_as_given():
        with drawing_alike(), _noting(network) as modules:
            network(*(x.clone() for x in inputs))
        with drawing_alike():
            keeping = _Keeping(graph)
            keeping.run(*(x.clone() for x in inputs))
    return modules, keeping.values


@contextmanager
def _noting(network: nn.Module) -> Iterator[dict[str, list[_Call]]]:
    """Inside, calls of modules are noted under their names."""
    found: dict[str, list[_Call]] = {}
    entered: list[tuple[list[Any], Any]] = []

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        leaves, tree = taken_apart((args, kwargs))
        entered.append(([_kept(leaf) for leaf in leaves], tree))

    def leave(module: nn.Module, args: Any, kwargs: Any, returned: Any, name: str) -> None:
        given, arguments = entered.pop()
        leaves, results = taken_apart(returned)
        call = _Call(given, arguments, [_kept(leaf) for leaf in leaves], results)
        found.setdefault(name, []).append(call)

    hooks = []
    for name, module in network.named_modules():

        def left(module: nn.Module, args: Any, kwargs: Any, returned: Any, name: str = name) -> None:
            leave(module, args, kwargs, returned, name)

        hooks.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        hooks.append(module.register_forward_hook(left, with_kwargs=True))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _kept(value: Any) -> Any:
    """A value as it is now: it may be written into later."""
    return value.clone() if isinstance(value, Tensor) else value


class _Keeping(fx.Interpreter):
    """Runs a graph, and keeps its values."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.values: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.values[n.name] = _kept(value)
        return value
