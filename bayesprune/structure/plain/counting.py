"""The multiply-accumulates of a network that runs as its graph, whose layers are never called."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

from bayesprune.structure.plain.plain_graph import PlainGraph

PRODUCTS = {f"aten::{kind}" for kind in ("linear", "conv1d", "conv2d", "conv3d")}


def graph_macs(network: PlainGraph, *inputs: Tensor) -> int:
    """Multiply-accumulates of linear maps and convolutions for one row, in evaluation.

    (numbers in the weight) × (output positions per row), summed over operations, as `count` has it.

    Args:
        network: that runs as its graphs.
        inputs: (rows, ...) each, a batch that it accepts.

    Returns:
        A whole number.

    Example:
        >>> from bayesprune.structure.graph import as_plain_graph
        >>> graph_macs(as_plain_graph(torch.nn.Linear(3, 2), torch.zeros(2, 3)), torch.zeros(1, 3))
        6
    """
    counter = _Counter(network)
    with torch.no_grad():
        counter.run(*inputs)
    return counter.macs


class _Counter(fx.Interpreter):
    def __init__(self, network: PlainGraph) -> None:
        super().__init__(network, graph=network._bayesprune_program.graphs[False])
        self.macs = 0

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        result = super().call_function(target, args, kwargs)
        schema = getattr(target, "_schema", None)
        if schema is not None and schema.name in PRODUCTS:
            weight = (dict(zip([a.name for a in schema.arguments], args, strict=False)) | kwargs)["weight"]
            self.macs += math.prod(weight.shape) * (result.numel() // len(result) // len(weight))
        return result
