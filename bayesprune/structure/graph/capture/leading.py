"""Where the rows are in values, as far as the operations alone tell that they keep them apart."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import Size, fx
from torch._ops import OpOverload

Place = tuple[int, int, int]
"""The dimension that rows run along, how often each comes one after the other, how often all come."""

Given = dict[str, Any]
Keeps = Callable[[Given, Size, Place], int | None]
"""(arguments by name, shape of what is read, where its rows are) → the dimension that its rows run along in
the result, each on its own; None where that is not told."""


def places_of_rows(graph: fx.GraphModule, sizes: Mapping[fx.Node, Size], rows: int) -> dict[str, Place]:
    """Value → where its rows are, as far as operations tell.

    An operation that is not known here, or that may mix rows, says nothing of its result, nor of what comes
    after it. Norms of a batch are of one row here, as when rows are marked.

    Args:
        graph: of one mode.
        sizes: node → shape of its value.
        rows: of the example.
    """
    constant, found = set[fx.Node](), dict[fx.Node, Place]()
    for node in graph.graph.nodes:
        read = [source for source in node.all_input_nodes if source not in constant]
        if node.op == "placeholder":
            found |= {node: (0, 1, 1)} if sizes[node][:1] == (rows,) else {}
        elif _repeats(node) and sizes[node][:1] == (rows,):
            found[node] = 0, 1, 1
        elif node.op == "get_attr" or (node.op == "call_function" and (not read or _of_shapes(node))):
            constant.add(node)
        elif node.op == "call_function" and found.keys() >= set(read):
            place = _place(node, read, sizes, found)
            if place is not None and (node not in sizes or _fits(sizes[node], place, rows)):
                found[node] = place
    return {node.name: place for node, place in found.items() if node in sizes}


def _fits(size: Size, place: Place, rows: int) -> bool:
    dim, inner, outer = place
    return dim < len(size) and size[dim] == rows * inner * outer


def _is_size(node: fx.Node) -> bool:
    return str(node.target).startswith("aten.sym_size")


def _of_shapes(node: fx.Node) -> bool:
    """Whether a result hangs on nothing of what is read but its shape."""
    return _is_size(node) or (isinstance(node.target, OpOverload) and _kind(node.target) in OF_SHAPES)


def _kind(target: OpOverload) -> str:
    return target._schema.name.removeprefix("aten::").rstrip("_")


OF_SHAPES = {"new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like"}
"""Operations that make the same numbers for every row."""


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


def _place(
    node: fx.Node, read: list[fx.Node], sizes: Mapping[fx.Node, Size], found: Mapping[fx.Node, Place]
) -> Place | None:
    """Where an operation leaves rows, of which it is known where they are in all that it reads."""
    first, place = read[0], found[read[0]]
    if node.target is operator.getitem:
        return place
    if not isinstance(node.target, OpOverload) or any(found[source] != place for source in read):
        return None
    names = [argument.name for argument in node.target._schema.arguments]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    kind, size = _kind(node.target), sizes.get(first, Size())
    if kind == "einsum":
        return _summed(given, read, place)
    alike = all(len(sizes.get(source, ())) == len(size) for source in read)
    if torch.Tag.pointwise in node.target.tags or kind in POINTWISE:
        keeps = alike and len(sizes[node]) == len(size) and _alone(node, read, sizes, len(size) - place[0])
        return place if keeps else None
    if kind in RESHAPES:
        return _reshaped(size, sizes[node], place) if read == [first] and first == given.get("self") else None
    if kind in OF_SEVERAL:
        apart = kind == "cat" or _alone(node, read, sizes, len(size) - place[0])
        dim = OF_SEVERAL[kind](given, size, place) if alike and apart else None
    elif kind in OF_ONE and read == [first] and first in [given.get(n) for n in ("self", "input", "indices")]:
        dim = OF_ONE[kind](given, size, place)
    else:
        dim = None
    return None if dim is None else (dim, *place[1:])


def _alone(node: fx.Node, read: list[fx.Node], sizes: Mapping[fx.Node, Size], behind: int) -> bool:
    """Whether what else is read is the same for all rows, which run along a dimension counted from behind."""
    others = [sizes.get(source, Size()) for source in node.all_input_nodes if source not in read]
    return all(len(size) < behind or size[-behind] == 1 for size in others)


def _summed(given: Given, read: list[fx.Node], place: Place) -> Place | None:
    """Where a sum over letters leaves rows: at the letter that they have in all that has any."""
    terms, _, result = str(given["equation"]).replace(" ", "").partition("->")
    if "." in terms:
        return None
    operands = list(zip(given["tensors"], terms.split(","), strict=True))
    letters = {term[place[0]] for source, term in operands if source in read}
    others = "".join(term for source, term in operands if source not in read)
    letter = letters.pop()
    if letters or letter in others or result.count(letter) != 1:
        return None
    return (result.index(letter), *place[1:])


def _reshaped(size: Size, into: Size, place: Place) -> Place | None:
    """Where rows are when the numbers, in the same order, have another shape; None where they are split."""
    dim, inner, outer = place
    after = inner * prod(size[dim + 1 :])  # so many numbers of a row, then as many of the next one
    rows = size[dim] // (inner * outer)
    if prod(size) != prod(into):  # numbers of another type
        return None
    for into_dim, length in enumerate(into):
        behind = prod(into[into_dim + 1 :])
        if behind and after % behind == 0 and (length * behind) % (after * rows) == 0 and length:
            return into_dim, after // behind, length * behind // (after * rows)
    return None


def _same(given: Given, size: Size, place: Place) -> int:
    return place[0]


def _in_front(given: Given, size: Size, place: Place) -> int | None:
    return 0 if place[0] == 0 else None


def _spatial(ndim: int) -> Keeps:
    """Of operations on so many dimensions with rows in front, and one less without."""
    return lambda given, size, place: 0 if place[0] == 0 and len(size) == ndim else None


def _before_last(number: int) -> Keeps:
    """Of operations on the last dimensions, so many of them."""
    return lambda given, size, place: place[0] if place[0] < len(size) - number else None


def _dims(given: Given, size: Size, *names: str) -> list[int] | None:
    """Dimensions that an operation is told, from the front; None where it is not told, or no number."""
    told = [given.get(name) for name in names]
    several = [dim for value in told for dim in (value if isinstance(value, list | tuple) else [value])]
    dims = [dim % len(size) for dim in several if isinstance(dim, int)]
    return dims if len(dims) == len(several) else None


def _along(given: Given, size: Size, place: Place) -> int | None:
    """Of operations along dimensions that rows are none of, and that stay."""
    dims = _dims({"dim": 0, **given}, size, "dim")
    return place[0] if dims and place[0] not in dims else None


def _rolled(given: Given, size: Size, place: Place) -> int | None:
    return _along({"dim": given.get("dims")}, size, place)


def _reduced(given: Given, size: Size, place: Place) -> int | None:
    """Of operations along dimensions that rows are none of, and that go, unless they are kept."""
    dims = _dims(given, size, "dim")
    if not dims or place[0] in dims:
        return None
    return place[0] - (0 if given.get("keepdim", False) else sum(dim < place[0] for dim in set(dims)))


def _taken_out(given: Given, size: Size, place: Place) -> int | None:
    """Of operations that take a dimension apart, which is the first one unless they are told."""
    return _reduced({"dim": 0, **given}, size, place)


def _permuted(given: Given, size: Size, place: Place) -> int | None:
    dims = _dims(given, size, "dims")
    return dims.index(place[0]) if dims and place[0] in dims else None


def _transposed(given: Given, size: Size, place: Place) -> int | None:
    dims = _dims(given, size, *(("axis0", "axis1") if "axis0" in given else ("dim0", "dim1")))
    if dims is None:
        return None
    return dims[1 - dims.index(place[0])] if place[0] in dims else place[0]


def _unsqueezed(given: Given, size: Size, place: Place) -> int | None:
    dim = given["dim"]
    return place[0] + (dim % (len(size) + 1) <= place[0]) if isinstance(dim, int) else None


def _padded(given: Given, size: Size, place: Place) -> int | None:
    return place[0] if len(given["pad"]) <= 2 * (len(size) - 1 - place[0]) else None


def _normed(given: Given, size: Size, place: Place) -> int | None:
    return _before_last(len(given["normalized_shape"]))(given, size, place)


def _with_statistics(given: Given, size: Size, place: Place) -> int | None:
    return _in_front(given, size, place) if len(size) > 1 and given["running_mean"] is not None else None


RESHAPES = {"view", "reshape", "_unsafe_view", "flatten", "unflatten"}
"""Operations that leave all numbers in order."""

OF_ONE: dict[str, Keeps] = {
    "conv1d": _spatial(3), "conv2d": _spatial(4), "conv3d": _spatial(5),
    "max_pool1d": _spatial(3), "max_pool2d": _spatial(4), "max_pool3d": _spatial(5),
    "avg_pool1d": _spatial(3), "avg_pool2d": _spatial(4), "avg_pool3d": _spatial(5),
    "adaptive_avg_pool1d": _spatial(3), "adaptive_avg_pool2d": _spatial(4),
    "adaptive_max_pool2d": _spatial(4), "upsample_nearest2d": _spatial(4), "upsample_bilinear2d": _spatial(4),
    "upsample_bicubic2d": _spatial(4), "pixel_shuffle": _spatial(4), "pixel_unshuffle": _spatial(4),
    "linear": _before_last(1), "layer_norm": _normed, "rms_norm": _normed,
    "batch_norm": _with_statistics, "group_norm": _in_front, "feature_dropout": _in_front,
    "dropout": _same, "alpha_dropout": _same, "clone": _same, "contiguous": _same, "detach": _same,
    "alias": _same, "to": _same, "embedding": _same,
    "permute": _permuted, "transpose": _transposed, "swapaxes": _transposed, "swapdims": _transposed,
    "unsqueeze": _unsqueezed, "pad": _padded,
    "softmax": _along, "log_softmax": _along, "slice": _along, "narrow": _along, "chunk": _along,
    "split": _along, "split_with_sizes": _along, "cumsum": _along, "roll": _rolled, "flip": _rolled,
    "mean": _reduced, "sum": _reduced, "amax": _reduced, "select": _taken_out, "unbind": _taken_out,
}  # fmt: skip
"""Operation on one value with rows → where it leaves them."""

OF_SEVERAL: dict[str, Keeps] = {
    "cat": _along, "scaled_dot_product_attention": _before_last(2), "matmul": _before_last(2),
}  # fmt: skip
"""Those that read several, all with rows in the same place; what else they read is the same for all rows."""

POINTWISE = {"relu6", "silu", "hardswish", "hardtanh", "gelu", "hardsigmoid", "mish", "softplus", "elu",
             "selu", "celu", "leaky_relu"}  # fmt: skip
"""Pointwise operations that carry no tag."""
