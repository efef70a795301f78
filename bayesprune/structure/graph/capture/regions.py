"""Regions of ``forward`` under ``torch.no_grad`` or ``autocast(enabled=False)``, as part of their graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from bayesprune.errors import UnsupportedNetworkError

HIGHER = torch.ops.higher_order
GRAD, AUTOCAST = HIGHER.wrap_with_set_grad_enabled, HIGHER.wrap_with_autocast


def inline_(module: fx.GraphModule) -> None:
    """Put the operations of every region in its place, for tracing makes a graph of its own of each.

    What a region without gradients reads is detached: none flows to weights and values from inside, and the
    region's own gates, which come in beside them, learn. Autocast that is off is nothing to be told, since
    none is on around it.

    Args:
        module: as it was traced; changed in place.

    Raises:
        UnsupportedNetworkError: autocast that is on.
    """
    regions = [node for node in module.graph.nodes if node.target in (GRAD, AUTOCAST)]
    for node in regions:
        _inline_(module, node)
    if regions:
        module.graph.eliminate_dead_code(lambda node: node.op != "get_attr" or not _is_graph(module, node))
        module.graph.lint()
        module.recompile()


def _inline_(module: fx.GraphModule, node: fx.Node) -> None:
    region, given = _region(node)
    inner: fx.GraphModule = getattr(module, str(region.target))
    _check(node)
    inline_(inner)
    detached = node.target is GRAD and not node.args[0]
    places = [n for n in inner.graph.nodes if n.op == "placeholder"]
    with module.graph.inserting_before(node):
        twins: dict[fx.Node, Any] = {
            place: _detached(module, value) if detached else value
            for place, value in zip(places, given, strict=True)
        }
        for old in inner.graph.nodes:
            if old.op == "get_attr":
                _lend_(module, inner, old)
            if old.op not in ("placeholder", "output"):
                twins[old] = module.graph.node_copy(old, lambda n: twins[n])
    (results,) = next(n for n in inner.graph.nodes if n.op == "output").args
    for user in list(node.users):  # each takes one of the results
        result: fx.Node = twins[results[user.args[1]]]
        user.replace_all_uses_with(result)
        module.graph.erase_node(user)
    module.graph.erase_node(node)


def _region(node: fx.Node) -> tuple[fx.Node, tuple[Any, ...]]:
    """The node that names a region's graph, and what the region reads."""
    at = 1 if node.target is GRAD else 4
    region = node.args[at]
    assert isinstance(region, fx.Node)
    return region, node.args[at + 1 :]


def _check(node: fx.Node) -> None:
    if node.target is AUTOCAST and node.args[2]:
        raise UnsupportedNetworkError(
            "Cannot trace the network: its forward switches torch.autocast on. Take it out of forward; for "
            "half the memory give network.bfloat16()."
        )


def _detached(module: fx.GraphModule, value: Any) -> Any:
    """What a region reads, without its gradient: numbers and buffers have none."""
    tensor = isinstance(value, fx.Node) and isinstance(value.meta.get("val"), Tensor)
    if not tensor or not value.meta["val"].is_floating_point():
        return value
    if value.op == "get_attr" and not isinstance(_attribute(module, value), nn.Parameter):
        return value
    new = module.graph.call_function(torch.ops.aten.detach.default, (value,))
    new.meta = dict(value.meta)
    return new


def _attribute(module: fx.GraphModule, node: fx.Node) -> Any:
    owner, _, last = str(node.target).rpartition(".")
    return getattr(module.get_submodule(owner), last)


def _is_graph(module: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(_attribute(module, node), fx.GraphModule)


def _lend_(module: fx.GraphModule, inner: fx.GraphModule, node: fx.Node) -> None:
    """A constant of a region becomes one of the whole graph, under a name that is free there."""
    value, name = _attribute(inner, node), str(node.target).replace(".", "_")
    while hasattr(module, name):
        name += "_"
    module.register_buffer(name, value, persistent=False)
    node.target = name
