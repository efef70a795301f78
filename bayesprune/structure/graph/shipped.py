"""From a captured network to what is shipped: a module that runs as its graphs, over the same parameters."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from bayesprune.errors import UnsupportedNetworkError
from bayesprune.structure.copying import copy_of
from bayesprune.structure.graph.capture.capture import Captured, capture, find_tensor
from bayesprune.structure.plain import Part, PlainGraph, bare


def as_plain_graph(network: nn.Module, example: Any) -> PlainGraph:
    """Any network as a module that runs as its graphs.

    Args:
        network: any module that can be traced; left alone.
        example: (rows, ...), a batch that it accepts, in any form that ``bp.gate`` takes.

    Returns:
        A copy, in the mode that the network is in; one that is a ``PlainGraph`` already is only copied.

    Raises:
        UnsupportedNetworkError: PyTorch cannot trace the network; the line is named.
    """
    if isinstance(network, PlainGraph):
        return copy_of(network)
    captured = capture(network, example)
    return plain_graph_of(captured, captured.graphs)


def plain_graph_of(captured: Captured, graphs: Mapping[bool, fx.GraphModule], why: str = "") -> PlainGraph:
    """A captured network as a graph module of the same parameters.

    Args:
        captured: the network, and how its outputs hang together.
        graphs: training or not → what is run: the captured graphs, or those after a cut.
        why: it is not of its own class, for who looks at it.

    Returns:
        The module; it shares the captured network's parameters and buffers, and nothing else.

    Raises:
        UnsupportedNetworkError: it runs graphs inside of its graph.
    """
    tree, constants = bare(captured.network), Part("Constants")
    place, clean = _free_name(tree), {}
    for training, module in graphs.items():
        clean[training] = _clean(module)
        for node in clean[training].nodes:
            if node.op == "get_attr" and find_tensor(tree, str(node.target)) is None:
                tensor = find_tensor(module, str(node.target))
                if tensor is None:
                    raise UnsupportedNetworkError(
                        f"The {type(captured.network).__name__} runs a part of it as a graph of its own "
                        f"({node.target!r}), as under torch.no_grad() in forward, which cannot be written "
                        "down: let forward detach() what shall have no gradient."
                    )
                node.target = f"{place}.{_constant(constants, tensor.detach())}"
    if constants._buffers:
        tree.add_module(place, constants)
    return PlainGraph(tree, clean, captured.outputs, captured.form, why)


def _constant(constants: Part, tensor: Tensor) -> str:
    """The name of a constant, which both graphs share where it is the same."""
    for name, known in constants.named_buffers():
        if known.dtype == tensor.dtype and torch.equal(known, tensor):
            return name
    name = f"c{len(constants._buffers)}"
    constants.register_buffer(name, tensor.clone(), persistent=False)
    return name


def _free_name(tree: nn.Module) -> str:
    name = "constants"
    while hasattr(tree, name):
        name += "_"
    return name


def _clean(module: fx.GraphModule) -> fx.Graph:
    """A graph that only computes: checks of types, which would outlast the types, and notes are gone."""
    graph = copy.deepcopy(module.graph)
    for node in reversed(list(graph.nodes)):
        node.meta = {}
        if node.op == "call_function" and "_assert_" in str(node.target):
            graph.erase_node(node)
    graph.eliminate_dead_code()
    return graph
