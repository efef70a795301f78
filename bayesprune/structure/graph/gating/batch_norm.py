"""Running means and variances of a network's graph, taken anew for the weights that it has now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from bayesprune.structure.graph.capture.capture import find_tensor
from bayesprune.structure.graph.rules.call import arguments


def renormalise_(
    network: nn.Module, graphs: Mapping[bool, fx.GraphModule], batches: Iterable[tuple[Tensor, ...]]
) -> None:
    """Replace running statistics of batch normalisation by plain means over some batches.

    Each layer normalises by the batch, as in training; all else runs as in evaluation. Statistics that
    training does not move (of a layer that is kept in evaluation) stay.

    Args:
        network: owner of parameters and buffers.
        graphs: training or not → the graph.
        batches: of inputs, (rows, ...) each.
    """
    moving = {}
    for node in graphs[True].graph.nodes:
        given = arguments(node) if _is_batch_norm(node.target) else {}
        mean = given.get("running_mean")
        while isinstance(mean, fx.Node) and mean.op == "call_function":  # a copy, of plain averages
            mean = mean.args[0]
        if isinstance(mean, fx.Node) and given["training"]:
            moving[str(mean.target)] = find_tensor(network, str(mean.target))
    counts = {id(tensor): 0 for tensor in moving.values()}
    if not counts:
        return
    with torch.no_grad():
        for inputs in batches:
            _Estimating(graphs[False], network, counts).run(*inputs)
    for name, mean in moving.items():
        tracked = find_tensor(network, f"{name.rpartition('.')[0]}.num_batches_tracked".lstrip("."))
        if tracked is not None:
            tracked.fill_(counts[id(mean)])


class _Estimating(fx.Interpreter):
    """Runs a graph of evaluation, in which some statistics follow the batches.

    Args:
        graph: of evaluation.
        network: owner of parameters and buffers.
        counts: identity of a running mean → batches that it has seen.
    """

    def __init__(self, graph: fx.GraphModule, network: nn.Module, counts: dict[int, int]) -> None:
        super().__init__(graph)
        self.network, self.counts = network, counts

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        tensor = find_tensor(self.network, target)
        return super().get_attr(target, args, kwargs) if tensor is None else tensor

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if _is_batch_norm(target):
            names = [argument.name for argument in target._schema.arguments]
            given = dict(zip(names, args, strict=False)) | kwargs
            key = id(given["running_mean"])
            if key in self.counts:
                self.counts[key] += 1
                given |= {"training": True, "momentum": 1 / self.counts[key]}  # in all, a plain mean
                return target(**given)
        return super().call_function(target, args, kwargs)


def _is_batch_norm(target: Any) -> bool:
    return str(target) == "aten.batch_norm.default"
