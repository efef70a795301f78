"""Operations that move numbers and compute nothing: they are run on the labels themselves."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bayesprune.structure.graph.rules.call import (
    Call,
    Place,
    Raw,
    arguments,
    is_fixed,
    operation,
    rule,
    united,
    varying,
)
from bayesprune.structure.graph.rules.labels import along, compact, spread
from bayesprune.structure.graph.rules.pointwise import as_labels

MOVES = (
    "view", "reshape", "_unsafe_view", "permute", "transpose", "t", "numpy_T", "mT", "adjoint", "movedim",
    "moveaxis", "swapaxes", "swapdims", "flatten", "unflatten", "squeeze", "unsqueeze", "expand",
    "select", "slice", "narrow", "split", "split_with_sizes", "chunk", "tensor_split", "unbind", "cat",
    "concat", "stack", "roll", "flip", "index_select", "index", "repeat", "repeat_interleave", "tile",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "view_as",
    "reshape_as", "diagonal", "unfold", "rot90", "hsplit", "vsplit", "hstack", "vstack",
)  # fmt: skip
KEEPS = (
    "clone", "contiguous", "detach", "detach_", "alias", "lift_fresh_copy", "lift_fresh", "to", "_to_copy",
    "type_as", "float", "half", "double", "zeros_like", "ones_like", "empty_like", "full_like", "rand_like",
    "randn_like", "dropout", "dropout_", "feature_dropout", "alpha_dropout", "feature_alpha_dropout",
    "positive", "requires_grad_", "_conj", "_conj_physical", "resolve_conj", "conj_physical",
)  # fmt: skip


@rule(*(f"aten.{name}" for name in MOVES), parameters=("self", "tensors", "other"))
def move(call: Call) -> Any:
    """Do to the labels what was done to the numbers."""
    raw = call.known.get("self")
    if isinstance(raw, Raw):
        permuted = _permuted(call, raw)
        if permuted is not None:
            return permuted
    if operation(call) in ("aten.stack", "aten.hstack", "aten.vstack"):
        first, *others = (as_labels(call, part) for part in call.known["tensors"])
        for other in others:  # parts of one shape lose the same
            call.join(*torch.broadcast_tensors(compact(first), compact(other)))
    arguments = {name: _swap(call, known, call.args[name]) for name, known in call.known.items()}
    if operation(call) in ("aten.cat", "aten.concat"):
        arguments["tensors"] = _aligned(call, arguments["tensors"], call.args.get("dim", 0))
    if operation(call) in ("aten.view", "aten._unsafe_view"):  # labels may lie in memory as views cannot
        return _compacted(arguments["self"].reshape(arguments["size"]))
    return _compacted(call.node.target(**arguments))  # type: ignore[operator]


def _aligned(call: Call, parts: list[Tensor], dim: int) -> list[Tensor]:
    """Parts that are put one behind the other lose the same along all other dimensions."""
    dim %= parts[0].ndim
    across = set().union(*(varying(part) - {dim} for part in parts))
    if len(across) != 1 or any(part.ndim != parts[0].ndim or dim in varying(part) for part in parts):
        return parts
    units = across.pop()
    first, *others = (along(part, units) for part in parts if part.numel())
    assert first is not None
    for other in others:
        call.join(first, other)  # type: ignore[arg-type]
    return [spread(first, units, part.shape) for part in parts]


@rule("aten.new_zeros", "aten.new_ones", "aten.new_full", "aten.new_empty", parameters=("self",))
def made(call: Call) -> Any:
    """Numbers of their own; what is read lends its type alone."""
    return call.fixed()


@rule("aten.expand_as", parameters=("self", "other"))
def expand_as(call: Call) -> Any:
    """What is repeated for every unit of another value is that unit's."""
    x, other = as_labels(call, call.known["self"]), as_labels(call, call.known["other"])
    sizes = [1] * (len(call.shape) - x.ndim) + list(x.shape)
    repeated = {d for d, size in enumerate(sizes) if size == 1}
    units = varying(other)
    if units and units <= repeated and is_fixed(x):
        return other
    if units & repeated:
        call.freeze(other, "something is expanded to its size")
    else:
        call.join(*torch.broadcast_tensors(compact(x.expand(call.shape)), compact(other)))
    return x.expand(call.shape)


@rule(*(f"aten.{name}" for name in KEEPS), parameters=("self", "input"))
def keep(call: Call) -> Any:
    """Every number stays where it is."""
    return call.known["self"] if "self" in call.known else call.known["input"]


@rule("aten.pad", "aten.constant_pad_nd", "aten.reflection_pad1d", "aten.reflection_pad2d",
      "aten.replication_pad1d", "aten.replication_pad2d", "aten.reflection_pad3d",
      "aten.replication_pad3d", parameters=("self",))  # fmt: skip
def pad(call: Call) -> Any:
    """Numbers around each unit's; a padding that adds units makes what it meets fixed."""
    labels = as_labels(call, call.known["self"])
    pads: list[int] = list(call.args["pad"] if "pad" in call.args else call.args["padding"])
    padded = {labels.ndim - 1 - i // 2 for i, amount in enumerate(pads) if amount}
    if varying(labels) & padded:
        return _pad_units(call, labels, pads)
    index = tuple(slice(0, 1) if d in padded else slice(None) for d in range(labels.ndim))
    return labels[index].expand(call.shape)


def _pad_units(call: Call, labels: Tensor, pads: list[int]) -> Any:
    """Zeros as further units, which go with what they meet."""
    padded = {labels.ndim - 1 - i // 2 for i, amount in enumerate(pads) if amount}
    kind, mode = operation(call), call.args.get("mode", "constant")
    dim, vector = padded.pop(), None
    if not padded and min(pads) >= 0 and (kind == "aten.constant_pad_nd" or mode == "constant"):
        vector = along(labels, dim)
    if vector is None:
        call.freeze(labels, "it is padded with further units")
        return call.fixed()
    before, after = pads[2 * (labels.ndim - 1 - dim)], pads[2 * (labels.ndim - 1 - dim) + 1]
    added = call.labels.of(call.labels.new_name("pad"), 0, before + after)
    call.findings.pads[call.node] = (added[:before], added[before:])
    return spread(torch.cat([added[:before], vector, added[before:]]), dim, call.shape)


def _swap(call: Call, known: Any, value: Any) -> Any:
    """The label where a tensor of numbers stood; index tensors stay as they are."""
    if isinstance(known, list | tuple) and any(isinstance(part, Tensor | Raw) for part in known):
        return [_swap(call, part, whole) for part, whole in zip(known, value, strict=True)]
    if not isinstance(known, Tensor | Raw):
        return value
    if isinstance(value, Tensor) and value.dtype in (torch.int64, torch.int32, torch.bool, torch.uint8):
        return value if not _is_moved(call, value) else as_labels(call, known)
    return as_labels(call, known)


def _is_moved(call: Call, value: Tensor) -> bool:
    """Whether an integer tensor is what is moved, and not where to."""
    return value is call.args.get("self") or any(value is part for part in call.args.get("tensors", ()))


def _compacted(labels: Any) -> Any:
    """Labels that repeat along a dimension, in memory of one of them."""
    if not isinstance(labels, Tensor):
        return [_compacted(part) for part in labels]
    units = varying(labels)
    index = tuple(slice(None) if d in units else slice(0, 1) for d in range(labels.ndim))
    one = labels[index]
    return (one if one.numel() == labels.numel() else one.clone()).expand(labels.shape)  # lets go of the rest


def _permuted(call: Call, raw: Raw) -> Any:
    """A parameter whose dimensions change places, come, go, are repeated or parted; else None."""
    name = call.node.target._schema.name.removeprefix("aten::")  # type: ignore[union-attr]
    order = list(range(len(raw.shape)))
    if name in ("t", "numpy_T"):
        return raw.permuted(order[::-1])
    if name in ("transpose", "swapaxes", "swapdims"):
        a, b = (call.args[k] for k in ("dim0", "dim1") if k in call.args)
        order[a], order[b] = order[b], order[a]
        return raw.permuted(order)
    if name == "permute":
        return raw.permuted([d % len(order) for d in call.args["dims"]])
    if name == "mT":
        return raw.permuted([*order[:-2], order[-1], order[-2]])
    if name in ("expand", "repeat"):
        return _repeated(call, raw)
    if name in ("index", "index_select"):
        return _indexed(call, raw)
    if name in PARTS:
        return _parts(call, raw)
    if name in ("select", "unbind"):
        return _one_by_one(call, raw)
    return _with_short_dims(call, raw)


def _with_short_dims(call: Call, raw: Raw) -> Raw | None:
    """Only dimensions of one index come or go: the long ones keep their places."""
    if not isinstance(call.result, Tensor) or call.result.numel() != raw.shape.numel():
        return None
    if operation(call).removeprefix("aten.") not in SHORT:
        return None
    long = raw.long_dims()
    if [s for s in call.shape if s > 1] != [raw.shape[d] for d in long]:
        return _regrouped(call, raw)
    places = iter(raw.dims[d] for d in long)
    return Raw(raw.name, call.shape, tuple(next(places) if s > 1 else None for s in call.shape))


def _regrouped(call: Call, raw: Raw) -> Raw | None:
    """Dimensions that are put together or taken apart stay as they are; the others keep their places.

    None where all of them are: then the labels of the last one are followed number by number.
    """
    before, after = raw.long_dims(), [d for d, size in enumerate(call.shape) if size > 1]
    dims: list[Place | None] = [None] * len(call.shape)
    mixed: set[int] = set()
    while before and after:
        ours, theirs = [before.pop(0)], [after.pop(0)]
        while (left := _count(raw.shape, ours)) != (right := _count(call.shape, theirs)):
            (ours if left < right else theirs).append((before if left < right else after).pop(0))
        if len(ours) == len(theirs) == 1:
            dims[theirs[0]] = raw.dims[ours[0]]
        else:
            mixed |= set(ours)
    if not any(dims):
        return None
    call.freeze_along(raw, mixed, "it is moved about with others")
    return Raw(raw.name, call.shape, tuple(dims))


PARTS = ("split", "split_with_sizes", "chunk", "tensor_split", "slice", "narrow")


def _parts(call: Call, raw: Raw) -> Any:
    """Parts of a parameter along one dimension, as attention has its projections in one tensor."""
    dim = call.args.get("dim", 0) % len(raw.shape)
    if raw.dims[dim] is None or set(raw.long_dims()) <= {dim}:
        return None  # a vector: its labels are followed number by number
    whole, found = raw.along(call.labels, dim), []
    results = call.result if isinstance(call.result, list | tuple) else [call.result]
    numbers = torch.arange(raw.shape[dim]).reshape([-1 if d == dim else 1 for d in range(len(raw.shape))])
    taken = call.node.target(**{**call.args, "self": numbers})  # type: ignore[operator]
    for part, at in zip(results, taken if isinstance(taken, list | tuple) else [taken], strict=True):
        place: Place = (call.labels.new_name("part"), dim)
        call.join(call.labels.of(*place, part.shape[dim]), whole[at.reshape(-1)])
        found.append(Raw(raw.name, part.shape, (*raw.dims[:dim], place, *raw.dims[dim + 1 :])))
    return found if isinstance(call.result, list | tuple) else found[0]


def _count(shape: torch.Size, dims: list[int]) -> int:
    return math.prod(shape[d] for d in dims)


def _indexed(call: Call, raw: Raw) -> Raw | None:
    """Some of a parameter's indices along its first dimensions: those stay, and the others keep theirs."""
    if operation(call) == "aten.index":
        index = [part for part in call.args["indices"] if part is not None]
        if len(index) != 1 or call.args["indices"][0] is None or index[0].dtype == torch.bool:
            return None
        made, first = index[0].ndim, 0
    else:
        made, first = 1, call.args["dim"] % len(raw.shape)
    if raw.shape[first] <= 1 or len(raw.long_dims()) < 2:
        return None
    call.freeze_along(raw, {first}, "the inputs name its rows")
    dims = [*raw.dims[:first], *[None] * made, *raw.dims[first + 1 :]]
    return Raw(raw.name, call.shape, tuple(dims))


@rule("aten.view_as_complex", "aten.view_as_real", parameters=("self",))
def complex_view(call: Call) -> Any:
    """Pairs of numbers as one, or one as a pair: the last dimension comes or goes."""
    x, pairs = call.known["self"], operation(call) == "aten.view_as_complex"
    if isinstance(x, Raw):
        if pairs:
            call.freeze_along(x, {len(x.shape) - 1}, "it holds real and imaginary parts")
        return Raw(x.name, call.shape, x.dims[:-1] if pairs else (*x.dims, None))
    if pairs:
        call.join(compact(x), compact(x[..., :1]))
        return x[..., 0].expand(call.shape)
    return x.unsqueeze(-1).expand(call.shape)


@rule("aten.gather", parameters=())
def gather(call: Call) -> Any:
    """Numbers are taken from positions along one dimension; units along others pass."""
    x, index = call.known["self"], call.known["index"]
    dim = call.args["dim"] % x.ndim if x.ndim else 0
    units = varying(x)
    if len(units) != 1 or dim in units or not is_fixed(index):
        return call.frozen_everything("it takes numbers from positions among its units")
    along_units = units.pop()
    vector = united(call, x, along_units)
    if call.shape[along_units] != len(vector):
        return call.frozen_everything("it takes numbers from positions among its units")
    call.select("index", along_units, vector)
    return spread(vector, along_units, call.shape)


def _one_by_one(call: Call, raw: Raw) -> Raw | list[Raw] | None:
    """A weight for each index along a dimension, as for each of several experts: those indices stay."""
    dim = call.args.get("dim", 0) % len(raw.shape)
    if len(set(raw.long_dims()) - {dim}) < 2:
        return None  # a vector: its labels are followed number by number
    call.freeze_along(raw, {dim}, "it is one weight for each of them")
    dims = raw.dims[:dim] + raw.dims[dim + 1 :]
    if isinstance(call.result, Tensor):
        return Raw(raw.name, call.shape, dims)
    return [Raw(raw.name, part.shape, dims) for part in call.result]


SHORT = ("unsqueeze", "squeeze", "view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as",
         "reshape_as")  # fmt: skip


def _repeated(call: Call, raw: Raw) -> Raw | None:
    """Dimensions of one index become as many as there are units: a kernel for every channel."""
    offset = len(call.shape) - len(raw.shape)
    written = list(arguments(call.node)["size" if operation(call) == "aten.expand" else "repeats"])
    dims: list[Place | None] = []
    made: dict[int, Tensor] = {}
    for d, size in enumerate(call.shape):
        own = raw.shape[d - offset] if d >= offset else 1
        if own not in (1, size):
            return None
        if own == size:
            dims.append(raw.dims[d - offset] if d >= offset else None)
        elif not isinstance(written[d], int):  # as many as there are rows
            dims.append(None)
        else:
            place = (call.labels.new_name("expanded"), d)
            made[d] = call.labels.of(*place, size)
            dims.append(place)
    call.findings.expanded[call.node] = made
    return Raw(raw.name, call.shape, tuple(dims))
