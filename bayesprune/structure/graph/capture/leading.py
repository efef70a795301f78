"""Values whose rows run along dimension 0 because nothing that they are made of moves them away."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Size, fx
from torch._ops import OpOverload

Keeps = Callable[[dict[str, Any], int], bool]
"""(arguments by name, dimensions of what is read) → whether rows stay in front, and each on its own."""


def rows_in_front(graph: fx.GraphModule, sizes: Mapping[fx.Node, Size], rows: int) -> set[str]:
    """Names of the values that have one row after the other along dimension 0, as far as operations tell.

    An operation that is not known here, or that may mix rows, says nothing of its result, nor of what comes
    after it. Norms of a batch are of one row here, as when rows are marked.

    Args:
        graph: of one mode.
        sizes: node → shape of its value.
        rows: of the example.
    """
    constant, found = set[fx.Node](), set[fx.Node]()
    for node in graph.graph.nodes:
        read = [source for source in node.all_input_nodes if source not in constant]
        if node.op == "placeholder":
            found |= {node} if sizes[node][:1] == (rows,) else set()
        elif _repeats(node) and sizes[node][:1] == (rows,):
            found.add(node)
        elif node.op == "get_attr" or (node.op == "call_function" and (not read or _is_size(node))):
            constant.add(node)
        elif node.op == "call_function" and found.issuperset(read) and _keeps(node, read, sizes, rows):
            found.add(node)
    return {node.name for node in found if node in sizes}


def _is_size(node: fx.Node) -> bool:
    return str(node.target).startswith("aten.sym_size")


def _repeats(node: fx.Node) -> bool:
    """Whether a parameter is repeated once for every row, as a token is."""
    if node.target is not torch.ops.aten.expand.default:
        return False
    value, sizes = node.args[:2]
    rows = sizes[0] if isinstance(sizes, list | tuple) and sizes else None
    if not isinstance(value, fx.Node) or not isinstance(rows, fx.Node) or not _is_size(rows):
        return False
    source, dim = rows.args[:2]
    in_front = isinstance(source, fx.Node) and source.op == "placeholder" and dim == 0
    return bool(in_front and value.op == "get_attr")


def _keeps(node: fx.Node, read: list[fx.Node], sizes: Mapping[fx.Node, Size], rows: int) -> bool:
    """Whether an operation leaves rows in front, where they are so in all that it reads."""
    if node.target is operator.getitem:
        return sizes.get(node, Size())[:1] == (rows,)
    if not isinstance(node.target, OpOverload):
        return False
    names = [argument.name for argument in node.target._schema.arguments]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    kind, first = node.target._schema.name.removeprefix("aten::").rstrip("_"), read[0]
    size = sizes.get(first, Size())
    if node in sizes and sizes[node][:1] != (rows,):
        return False
    if torch.Tag.pointwise in node.target.tags or kind in POINTWISE:
        return all(len(sizes.get(source, ())) == len(sizes[node]) for source in read) and _in_front_alone(
            node, read, sizes
        )
    alone = read == [first] and first in [given.get(name) for name in ("self", "input", "indices")]
    several = kind in OF_SEVERAL and all(len(sizes.get(n, ())) == len(size) for n in (*read, node))
    alone = alone and kind not in OF_SEVERAL
    return kind in KEEPS and (alone or several) and KEEPS[kind](given, len(size))


def _in_front_alone(node: fx.Node, read: list[fx.Node], sizes: Mapping[fx.Node, Size]) -> bool:
    """Whether what else is read is the same for all rows."""
    others = [sizes.get(source, Size()) for source in node.all_input_nodes if source not in read]
    return all(len(size) < len(sizes[node]) or size[:1] in (Size([1]), Size()) for size in others)


def _along(*names: str) -> Keeps:
    """Of operations along dimensions that rows are none of."""

    def keeps(given: dict[str, Any], ndim: int) -> bool:
        dims = [given.get(name, 0 if name != "dim1" else 1) for name in names]
        dims = [
            dim for several in dims for dim in (several if isinstance(several, list | tuple) else [several])
        ]
        return bool(dims) and all(isinstance(dim, int) and dim % ndim != 0 for dim in dims)

    return keeps


def _spatial(ndim: int) -> Keeps:
    """Of operations on so many dimensions with rows in front, and one less without."""
    return lambda given, of: of == ndim


def _always(given: dict[str, Any], ndim: int) -> bool:
    return True


KEEPS: dict[str, Keeps] = {
    "conv1d": _spatial(3), "conv2d": _spatial(4), "conv3d": _spatial(5),
    "max_pool1d": _spatial(3), "max_pool2d": _spatial(4), "max_pool3d": _spatial(5),
    "avg_pool1d": _spatial(3), "avg_pool2d": _spatial(4), "avg_pool3d": _spatial(5),
    "adaptive_avg_pool1d": _spatial(3), "adaptive_avg_pool2d": _spatial(4),
    "adaptive_max_pool2d": _spatial(4), "upsample_nearest2d": _spatial(4), "upsample_bilinear2d": _spatial(4),
    "linear": lambda given, ndim: ndim > 1,
    "batch_norm": lambda given, ndim: ndim > 1 and given["running_mean"] is not None,
    "layer_norm": lambda given, ndim: len(given["normalized_shape"]) < ndim,
    "group_norm": _always, "dropout": _always, "feature_dropout": _always, "alpha_dropout": _always,
    "clone": _always, "contiguous": _always, "detach": _always, "alias": _always, "to": _always,
    "view": _always, "reshape": _always, "_unsafe_view": _always,  # in order, and as many in front as before
    "flatten": lambda given, ndim: given.get("start_dim", 0) % ndim > 0,
    "permute": lambda given, ndim: given["dims"][0] % ndim == 0,
    "transpose": _along("dim0", "dim1"),
    "softmax": _along("dim"), "log_softmax": _along("dim"), "mean": _along("dim"), "sum": _along("dim"),
    "amax": _along("dim"), "select": _along("dim"), "slice": _along("dim"), "narrow": _along("dim"),
    "chunk": _along("dim"), "split": _along("dim"), "split_with_sizes": _along("dim"),
    "unbind": _along("dim"), "unsqueeze": lambda given, ndim: given["dim"] % (ndim + 1) > 0,
    "pad": lambda given, ndim: len(given["pad"]) < 2 * ndim, "embedding": _always,
    "cat": lambda given, ndim: given.get("dim", 0) % ndim > 0,
    "scaled_dot_product_attention": lambda given, ndim: ndim > 2,
    "matmul": lambda given, ndim: ndim > 2,
}  # fmt: skip
"""Operation → whether it leaves rows in front."""

OF_SEVERAL = {"cat", "scaled_dot_product_attention", "matmul"}
"""Those that read several values with rows; all must have as many dimensions."""

POINTWISE = {"relu6", "silu", "hardswish", "hardtanh", "gelu", "hardsigmoid", "mish", "softplus", "elu",
             "selu", "celu", "leaky_relu"}  # fmt: skip
"""Pointwise operations that carry no tag."""
