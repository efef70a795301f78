"""Indices of a value along one dimension, which may be one of rows and units together."""

from __future__ import annotations

import torch
from torch import Tensor, fx

aten = torch.ops.aten


def selected(
    graph: fx.GraphModule, before: fx.Node, source: fx.Node, where: tuple[int, Tensor, Tensor], rows: int
) -> fx.Node:
    """Nodes that read a value where some units are.

    Units that come once for each row, as those of attention that puts rows and heads into one dimension, are
    taken out of that dimension first, for any number of rows may come.

    Args:
        graph: changed.
        before: the node that reads it.
        source: the value.
        where: its dimension, (size,) the labels of the units along it, and (size,) which of them are left.
        rows: how many the example has, with which the labels were found.

    Returns:
        The node of what is left.
    """
    dim, labels, stays = where
    outer, inner = _period(labels, rows)
    if outer or inner:
        size = len(labels) // rows
        stays = stays[:size] if outer else stays[::rows]
        sizes = [-1, size] if outer else [size, -1]
    name = f"bp_index_{before.name}_{len(graph.graph.nodes)}"
    graph.register_buffer(name, stays.nonzero().squeeze(1), persistent=False)
    with graph.graph.inserting_before(before):
        if outer or inner:
            source = graph.graph.call_function(aten.unflatten.int, (source, dim, sizes))
        index = graph.graph.get_attr(name)
        value = graph.graph.call_function(aten.index_select.default, (source, dim + int(outer), index))
        if outer or inner:
            value = graph.graph.call_function(aten.flatten.using_ints, (value, dim, dim + 1))
    return value


def _period(labels: Tensor, rows: int) -> tuple[bool, bool]:
    """Whether all units come once for each row, and whether each comes for all rows before the next does."""
    if len(labels) % rows:
        return False, False
    outer, inner = labels.view(rows, -1), labels.view(-1, rows)
    tiled = bool((outer == outer[:1]).all())
    return tiled, not tiled and bool((inner == inner[:, :1]).all())
