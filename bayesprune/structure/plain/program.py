"""What a network runs, in training and in evaluation: a value, which can be plain data too."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from bayesprune.rows.call import CallForm
from bayesprune.rows.nested import Leaf
from bayesprune.structure.plain.nodes import as_data, from_data
from bayesprune.structure.plain.trees import tree_data, tree_from_data

MODES = {"training": True, "evaluation": False}

Place = tuple[torch.device, torch.dtype]
"""Where a network's numbers are, and of which type."""


@dataclass(frozen=True)
class Program:
    """Two graphs over the tensors of one module.

    Attributes:
        kind: class of the network that they were taken from.
        graphs: training or not → graph; its ``get_attr`` nodes name tensors of the module.
        outputs: training or not → tree of its results.
        place: device and type that the graphs are written for.
        form: how the network is called.
        run: training or not → function of the module and its inputs; follows from ``graphs``.
    """

    kind: str
    graphs: Mapping[bool, fx.Graph]
    outputs: Mapping[bool, Any]
    place: Place
    form: CallForm
    run: dict[bool, Callable[..., Any]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "run", {t: _function(graph) for t, graph in self.graphs.items()})

    def moved(self, place: Place) -> Program:
        """The program of the same network on another device, or with numbers of another type."""
        if place == self.place:
            return self
        graphs = {training: _moved(graph, self.place, place) for training, graph in self.graphs.items()}
        return Program(self.kind, graphs, self.outputs, place, self.form)


def place_of(module: nn.Module) -> Place:
    """Device and type of the first of a module's numbers that are no integers."""
    tensors = [*module.parameters(), *module.buffers()]
    like = next((t for t in tensors if t.is_floating_point()), torch.zeros(()))
    return like.device, like.dtype


def program_data(program: Program) -> dict[str, Any]:
    """What a network runs, as plain data.

    Args:
        program: to write down.

    Returns:
        Mode → nodes of its graph, and how its outputs hang together; and, ``call``, what inputs it takes,
        where those are more than tensors by position of any sizes.

    Raises:
        ValueError: an operation, argument, name or output that cannot be written down.
    """
    data: dict[str, Any] = {
        mode: {"nodes": as_data(program.graphs[training]), "outputs": tree_data(program.outputs[training])}
        for mode, training in MODES.items()
    }
    form = program.form
    if form != by_position(program.graphs[False]):
        data["call"] = {
            "positional": tree_data(form.positional),
            "named": tree_data(dict(form.named)),
            "parameters": list(form.parameters),
            "optional": list(form.optional),
            "sizes": [list(row) for row in form.sizes],
        }
        if form.firsts:
            data["call"]["firsts"] = list(form.firsts)
    return data


def by_position(graph: fx.Graph) -> CallForm:
    """The form of a call with all of a graph's inputs by position, one tensor each."""
    names = tuple(str(node.target) for node in graph.nodes if node.op == "placeholder")
    return CallForm(tuple(map(Leaf, range(len(names)))), {}, names)


def program_from_data(data: Any, kind: str, tensors: Collection[str], place: Place) -> Program:
    """A program from plain data.

    Args:
        data: as `program_data` gives it.
        kind: class of the network.
        tensors: names of the parameters and buffers that there are.
        place: device and type that the data were written for.

    Returns:
        The program.

    Raises:
        ValueError: the data are not what `program_data` gives; mode and node are named.
    """
    graphs, outputs = {}, {}
    for mode, training in MODES.items():
        entry = data.get(mode) if isinstance(data, dict) else None
        try:
            if not isinstance(entry, dict) or set(entry) != {"nodes", "outputs"}:
                raise ValueError("there are no nodes and outputs")
            graphs[training] = from_data(entry["nodes"], tensors)
            results = next(node for node in graphs[training].nodes if node.op == "output").args[0]
            outputs[training] = tree_from_data(entry["outputs"], len(results))
        except (ValueError, RecursionError) as problem:
            raise ValueError(f"graph of {mode}: {problem}") from None
    form = by_position(graphs[False])
    if data.get("call") is not None:
        form = form_from_data(data["call"], len(form.positional))
    return Program(kind, graphs, outputs, place, form)


def form_from_data(data: Any, count: int) -> CallForm:
    """How a network is called, from plain data.

    Args:
        data: as `program_data` gives it, ``call``.
        count: tensors of its inputs.

    Raises:
        ValueError: the data are something else.
    """
    wrong = ValueError(f"call: {data!r} is not how a network is called")
    entries = {"positional", "named", "parameters", "optional"}
    if not isinstance(data, dict) or set(data) - {"sizes", "firsts"} != entries:
        raise wrong
    positional, named = tree_from_data({"tuple": [data["positional"], data["named"]]}, count)
    parameters, optional = data["parameters"], data["optional"]
    if type(positional) is not tuple or type(named) is not dict:
        raise wrong
    for names in (parameters, optional):
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise wrong
    if not named.keys() >= set(optional):
        raise wrong
    sizes = data.get("sizes", [])
    if not isinstance(sizes, list) or not all(map(_are_sizes, sizes)) or len(sizes) not in (0, count):
        raise wrong
    firsts = data.get("firsts", [])
    if not _are_sizes(firsts) or len(firsts) not in (0, count):
        raise wrong
    sizes = tuple(map(tuple, sizes))
    return CallForm(positional, named, tuple(parameters), tuple(optional), sizes, tuple(firsts))


def _are_sizes(row: Any) -> bool:
    """Whether data are the sizes of a row, None for any."""
    return isinstance(row, list) and all(n is None or (type(n) is int and n >= 0) for n in row)


def _function(graph: fx.Graph) -> Callable[..., Any]:
    """A graph as a function of ``self``, which has its tensors, and its inputs."""
    names = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    module = fx.GraphModule({name: torch.empty(0, device="meta") for name in names}, graph)
    return type(module).forward


def _moved(graph: fx.Graph, before: Place, now: Place) -> fx.Graph:
    """The graph with every device, and every mention of the type that the network had, as they are now."""
    graph = copy.deepcopy(graph)

    def follow(value: Any) -> Any:
        return now[0] if isinstance(value, torch.device) else now[1] if value is before[1] else value

    for node in graph.nodes:
        if node.op == "call_function":
            node.args = tuple(map(follow, node.args))
            node.kwargs = {name: follow(value) for name, value in node.kwargs.items()}
    return graph
