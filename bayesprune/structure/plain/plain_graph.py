"""PlainGraph: a network as the operations that it runs, over parameters of its own names; plain PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import TreeSpec, tree_unflatten

from bayesprune.structure.plain.parts import Part, fill_
from bayesprune.structure.plain.program import program_data, program_from_data, tensor_names

PROGRAM = ("_graphs", "_outputs", "_run")
"""Attributes that say what a PlainGraph runs."""

CASTS = {"aten::to", "aten::_to_copy"}
"""Operations whose type the user wrote down; types of tensors made in passing follow the network's."""


class PlainGraph(nn.Module):
    """A network that runs as its graphs, one for training and one for evaluation.

    Its parameters and buffers have the names of the network that the graphs were taken from, under layers of
    ``torch.nn`` that show their sizes. Those layers are not called, so that hooks on them do not run, and
    ``train()`` or ``eval()`` of a part alone changes nothing: the mode is the whole network's. Constants of
    the graphs are buffers that are no part of the ``state_dict``.

    Args:
        tree: root of the tree of names, constants included.
        graphs: training or not → its graph; every ``get_attr`` names a tensor of the tree.
        outputs: training or not → how its results hang together.

    Example:
        >>> from bayesprune.structure.graph import as_plain_graph
        >>> as_plain_graph(nn.Sequential(nn.Linear(3, 2), nn.Tanh()), torch.zeros(2, 3))
        PlainGraph(
          a Sequential of 2 operations
          (0): Linear(in_features=3, out_features=2, bias=True)
        )
    """

    def __init__(self, tree: Part, graphs: Mapping[bool, fx.Graph], outputs: Mapping[bool, TreeSpec]) -> None:
        super().__init__()
        fill_(self, tree)
        self._kind = tree._get_name()
        self._graphs = dict(graphs)
        self._outputs = dict(outputs)
        self._lives = _lives(self)
        self._run = {training: _function(graph) for training, graph in graphs.items()}

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Run the network.

        Args:
            inputs: (rows, ...) each, as the network that it was takes them.
            named: the same, by name.

        Returns:
            What that network returns.
        """
        leaves = self._run[self.training](self, *inputs, **named)
        return tree_unflatten(leaves, self._outputs[self.training])

    def extra_repr(self) -> str:
        """Which network it was, and how many operations it runs."""
        count = sum(node.op == "call_function" for node in self._graphs[False].nodes)
        return f"a {self._kind} of {count} operations"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PlainGraph:
        super()._apply(fn, recurse)
        before, now = self._lives, _lives(self)
        if now != before:
            self._graphs = {t: _moved(graph, before, now) for t, graph in self._graphs.items()}
            self._run = {training: _function(graph) for training, graph in self._graphs.items()}
            self._lives = now
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> PlainGraph:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        for name, value in self.__dict__.items():  # graphs are values: never changed in place, and shared
            twin.__dict__[name] = value if name in PROGRAM else copy.deepcopy(value, memo)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name not in PROGRAM}
        return {**state, "_program": program_data(self._graphs, self._outputs)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        program = state.pop("_program")
        super().__setstate__(state)
        self._graphs, self._outputs = program_from_data(program, tensor_names(self))
        self._run = {training: _function(graph) for training, graph in self._graphs.items()}


def _function(graph: fx.Graph) -> Callable[..., Any]:
    """A graph as a function of ``self``, which has its tensors, and its inputs."""
    names = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    module = fx.GraphModule({name: torch.empty(0, device="meta") for name in names}, graph)
    return type(module).forward


def _lives(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where a network's numbers are, and of which type."""
    tensors = [*module.parameters(), *module.buffers()]
    like = next((t for t in tensors if t.is_floating_point()), torch.zeros(()))
    return like.device, like.dtype


def _moved(
    graph: fx.Graph, before: tuple[torch.device, torch.dtype], now: tuple[torch.device, torch.dtype]
) -> fx.Graph:
    """The graph after its network has gone to another device or type."""
    graph = copy.deepcopy(graph)

    def follow(node: fx.Node, value: Any) -> Any:
        if isinstance(value, torch.device):
            return now[0]
        schema = node.target._schema  # type: ignore[union-attr]
        names = [argument.name for argument in schema.arguments]
        makes_tensors = "pin_memory" in names and schema.name not in CASTS
        return now[1] if value is before[1] and makes_tensors else value

    for node in graph.nodes:
        if node.op == "call_function" and hasattr(node.target, "_schema"):
            node.args = tuple(follow(node, value) for value in node.args)
            node.kwargs = {name: follow(node, value) for name, value in node.kwargs.items()}
    return graph
