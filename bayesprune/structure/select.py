"""Selections: what stands where a network keeps being handed what it no longer reads, in PyTorch alone."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn


def selection(width: int, index: Tensor) -> fx.GraphModule:
    """A module that reads some columns of its input: ``y = x[:, index]``.

    It is a graph of two operations over one buffer and holds no class of this library, so that
    ``torch.save`` and ``torch.load`` need none. The first operation refuses an input of another width.

    Args:
        width: columns of what comes in.
        index: (columns read,), their positions along dimension 1, in ascending order.

    Example:
        >>> select = selection(4, torch.tensor([0, 2]))
        >>> select(torch.tensor([[5.0, 6.0, 7.0, 8.0]]))
        tensor([[5., 7.]])
        >>> select.index
        tensor([0, 2])
    """
    graph = fx.Graph()
    x = graph.placeholder("x")
    whole = graph.call_function(torch.unflatten, (x, 1, (width,)))
    where = graph.get_attr("index")
    graph.output(graph.call_function(torch.index_select, (whole, 1, where)))
    root = nn.Module()
    root.register_buffer("index", index)
    return fx.GraphModule(root, graph, class_name="Select")


def selected(module: nn.Module) -> tuple[int, Tensor] | None:
    """Width and index of a selection; None for any other module."""
    if not isinstance(module, fx.GraphModule) or set(module._buffers) != {"index"}:
        return None
    if module._parameters or module._modules or [(n.op, n.target) for n in module.graph.nodes] != _FORM:
        return None
    whole, picked = (node for node in module.graph.nodes if node.op == "call_function")
    x, where = (node for node in module.graph.nodes if node.op in ("placeholder", "get_attr"))
    width = whole.args[2][0] if len(whole.args) == 3 and isinstance(whole.args[2], tuple) else None
    form = (whole.args, picked.args, module.graph.output_node().args)
    if not isinstance(width, int) or form != ((x, 1, (width,)), (whole, 1, where), (picked,)):
        return None
    return width, module._buffers["index"]  # type: ignore[return-value]


_FORM = [
    ("placeholder", "x"),
    ("call_function", torch.unflatten),
    ("get_attr", "index"),
    ("call_function", torch.index_select),
    ("output", "output"),
]
