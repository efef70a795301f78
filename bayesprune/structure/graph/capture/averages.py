"""Batch normalisation with ``momentum=None``: running statistics that are plain averages over all batches.

PyTorch hands its kernel the share of a batch, 1 / n, as a number, which it reads from a count of batches; no
graph can have that. Traced with a share of one, the kernel leaves the batch's own statistics s, and what the
running ones r become by them follows as operations on tensors: r ← s / n + (r − r / n).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _NormBase

from bayesprune.structure.graph.capture.tensors import find_tensor

aten = torch.ops.aten


@contextmanager
def shares_of_one(network: nn.Module) -> Iterator[set[int]]:
    """Inside, every batch of such a layer replaces what it had.

    Args:
        network: whose layers of ``momentum=None`` have one meanwhile.

    Yields:
        Identities of their running means.
    """
    layers = [m for m in network.modules() if isinstance(m, _NormBase) and _is_average(m)]
    for layer in layers:
        layer.momentum = 1.0
    try:
        yield {id(layer.running_mean) for layer in layers}
    finally:
        for layer in layers:
            layer.momentum = None


def _is_average(layer: _NormBase) -> bool:
    moves = layer.training and layer.track_running_stats and layer.running_mean is not None
    return moves and layer.momentum is None and layer.num_batches_tracked is not None


def write_averages_(module: fx.GraphModule, network: nn.Module, means: set[int]) -> None:
    """Let a graph take the averages that its network takes.

    Args:
        module: as it was traced under ``shares_of_one``; changed in place.
        network: whose buffers it computes with.
        means: identities of the running means of such layers.
    """
    for node in list(module.graph.nodes) if means else []:
        if node.target is aten.batch_norm.default:
            mean = node.args[3]
            if isinstance(mean, fx.Node) and id(find_tensor(network, str(mean.target))) in means:
                _write_(module.graph, node)


def _write_(graph: fx.Graph, node: fx.Node) -> None:
    """The kernel moves copies, for it keeps for its gradient what it is given."""

    def add(kind: Any, *args: Any) -> fx.Node:
        return graph.call_function(kind, args)

    running = node.args[3:5]
    owner = str(running[0].target).rpartition(".")[0]  # type: ignore[union-attr]
    with graph.inserting_before(node):
        copies = [add(aten.clone.default, r) for r in running]
    node.args = (*node.args[:3], *copies, *node.args[5:])
    following = node.next
    for r, s in zip(running, copies, strict=True):
        with graph.inserting_before(following):
            count = graph.get_attr(f"{owner}.num_batches_tracked".lstrip("."))
            rest = add(aten.sub.Tensor, r, add(aten.div.Tensor, r, count))
            add(aten.copy_.default, r, add(aten.add.Tensor, add(aten.div.Tensor, s, count), rest))
