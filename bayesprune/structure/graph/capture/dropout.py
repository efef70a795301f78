"""Rates of dropout: a graph has them as numbers, a user may change them in the modules."""

from __future__ import annotations

from torch import fx, nn

from bayesprune.structure.graph.capture.capture import Captured


def set_rates_(graph: fx.GraphModule, captured: Captured, training: bool) -> None:
    """Write the present rates into a graph that is shipped.

    Args:
        graph: of the captured network; changed in place.
        captured: whose modules have the rates.
        training: the graph's mode.
    """
    for node in graph.graph.nodes:
        path = captured.rates.get(training, {}).get(node.name)
        if path is not None:
            node.update_arg(1, captured.network.get_submodule(path).p)


def follow_rates_(graph: fx.GraphModule, captured: Captured, training: bool) -> None:
    """Let a graph that trains read its rates from their modules, every time that it runs.

    Args:
        graph: of the captured network; changed in place.
        captured: whose modules have the rates.
        training: the graph's mode.
    """
    for node in list(graph.graph.nodes):
        path = captured.rates.get(training, {}).get(node.name)
        if path is not None:
            holder, _, last = path.rpartition(".")
            _part(graph, holder).add_module(last, captured.network.get_submodule(path))
            with graph.graph.inserting_before(node):
                node.update_arg(1, graph.graph.create_node("get_attr", f"{path}.p"))


def _part(module: nn.Module, path: str) -> nn.Module:
    """The part of a graph's module of that name; made where there is none."""
    for name in path.split(".") if path else []:
        if name not in module._modules:
            module.add_module(name, nn.Module())
        module = module._modules[name]  # type: ignore[assignment]
    return module
