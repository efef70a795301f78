"""Inputs that a graph read from a file would write into: it is given copies, and the caller's rows stay."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

FRESH = frozenset({
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear",
    "matmul", "batch_norm", "layer_norm", "group_norm", "instance_norm", "max_pool1d", "max_pool2d",
    "max_pool3d",
})  # fmt: skip
"""Operations that PyTorch puts together from others, and that never give back what they were given."""


def copy_written_(graph: fx.Graph) -> None:
    """Let a graph run on a copy of every input that one of its operations may write into.

    What an operation gives may lie in the memory of its arguments unless PyTorch says otherwise: its schema
    names no alias, and it is no composition of other operations, which may return an argument as it is
    (``dropout`` in evaluation does). To be safe, an input that need not be copied may be.

    Args:
        graph: of inputs, tensors and operations; changed in place.
    """
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    reaches: dict[fx.Node, set[fx.Node]] = {node: {node} for node in inputs}
    written: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "call_function":
            for argument in _written_by(node):
                written |= reaches.get(argument, set())
            if _may_alias(node.target):
                reaches[node] = set().union(*(reaches.get(a, set()) for a in node.all_input_nodes))
    for node in inputs:
        if node in written:
            with graph.inserting_after(inputs[-1]):
                copied = graph.call_function(torch.ops.aten.clone.default, (node,))
            node.replace_all_uses_with(copied, delete_user_cb=lambda user, own=copied: user is not own)


def _written_by(node: fx.Node) -> list[fx.Node]:
    """Arguments that an operation writes into, those in lists too."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return []
    found: list[fx.Node] = []
    for position, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value: Any = node.kwargs.get(argument.name)
            value = node.args[position] if position < len(node.args) else value
            fx.map_arg(value, found.append)
    return found


def _may_alias(target: Any) -> bool:
    if not isinstance(target, OpOverload):
        return True  # takes one of several results
    schema = target._schema
    if any(value.alias_info is not None for value in schema.returns):
        return True
    name = schema.name.partition("::")[2]
    composed = torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), "CompositeImplicitAutograd")
    return bool(composed) and name not in FRESH
