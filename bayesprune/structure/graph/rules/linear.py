"""Operations that sum over units by a weight, and make new ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from bayesprune.structure.graph.rules.call import Call, Raw, is_fixed, rule, united, varying
from bayesprune.structure.graph.rules.labels import READS_FIXED, spread

COMPUTED = "its weight is computed, and such weights have no rule yet"


@rule("aten.linear", parameters=("weight", "bias"))
def linear(call: Call) -> Any:
    """y = x Wᵀ + b: the last dimension is summed over, W's rows are new units."""
    return contract(call, "input", call.known["weight"], "bias")


@rule("aten.addmm", parameters=("mat2", "self"))
def addmm(call: Call) -> Any:
    """y = b + x W."""
    weight = call.known["mat2"]
    return contract(call, "mat1", turned(weight), "self")


def turned(weight: Any) -> Any:
    """A weight of two dimensions with rows and columns changed over."""
    return weight.permuted([1, 0]) if isinstance(weight, Raw) and len(weight.shape) == 2 else weight


def contract(call: Call, name: str, weight: Any, bias: str = "") -> Any:
    """x Wᵀ + b for a weight (out, in), or (in,), that is a parameter."""
    x = call.known[name]
    if not isinstance(weight, Raw):
        return call.refill(COMPUTED)
    if varying(x) and x.ndim - 1 not in varying(x):
        return _within_units(call, x, weight, call.known.get(bias))
    read_columns(call, name, -1, weight, -1)
    if len(weight.shape) == 1:  # into one number
        if isinstance(call.known.get(bias), Raw | Tensor):
            call.freeze(call.known[bias], "it is added to what belongs to no unit")
        return call.fixed()
    rows = weight.along(call.labels, 0)
    call.meet(bias, -1, rows)
    return spread(rows, -1, call.shape)


def read_columns(call: Call, name: str, dim: int, weight: Raw, column: int) -> Tensor:
    """The units along a dimension of an argument, and those of a weight's columns, are the same.

    Where columns cannot go, as a length or a mean is over them, units are read with zeros in their places.
    """
    x = call.known[name]
    columns = united(call, x, dim)
    if not is_fixed(columns) and call.labels.is_whole(weight.dims[column]):
        replace(call, known={name: spread(columns, dim, x.shape)}).refill(READS_FIXED)
        return columns
    call.join(columns, weight.along(call.labels, column), READS_FIXED)
    call.read(name, dim, columns, weight, column=column)
    return columns


def _within_units(call: Call, x: Tensor, weight: Raw, bias: Any) -> Tensor:
    """A layer over positions, as in mixers: units run along another dimension, and pass."""
    for known in (weight, bias):
        if isinstance(known, Raw | Tensor):
            call.freeze(known, "it mixes the numbers of every unit")
    return x[..., :1].expand(call.shape) if len(weight.shape) > 1 else x[..., 0]


@rule("aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.convolution", parameters=("weight", "bias"))
def convolution(call: Call) -> Any:
    """Channels are summed over, filters are new units; grouped channels stay among themselves."""
    x, weight = call.known["input"], call.known["weight"]
    if not isinstance(weight, Raw) or (varying(x) and 1 not in varying(x)):
        return call.refill(COMPUTED if not isinstance(weight, Raw) else "it mixes neighbouring units")
    if x.ndim != len(weight.shape):
        return call.frozen_everything("it runs on one image without a dimension for rows")
    groups, transposed = call.args.get("groups", 1), call.args.get("transposed", False)
    if transposed:
        return call.refill("transposed convolutions of this form have no rule yet")
    rows = weight.along(call.labels, 0)
    call.meet("bias", 0, rows)
    if groups == 1:
        read_columns(call, "input", 1, weight, 1)
    else:
        _grouped(call, united(call, x, 1), rows, weight, groups)
    return spread(rows, 1, call.shape)


def _grouped(call: Call, channels: Tensor, rows: Tensor, weight: Raw, groups: int) -> None:
    """Whole groups are units where there are many of them; else the same position in every group.

    With n channels of a group left and m of its filters, group by group, the convolution is G blocks of m × n
    kernels. One weight (G m, n, ...) holds them if and only if all groups have the same n and the same m.
    Other patterns are exact only with every block padded by zeros to the widest, where a unit saves nothing
    as long as one group keeps all of its own: at independent gates of probability q that is 1 − (1 − qⁿ)ᴳ,
    0.9998 for the 32 groups of 4 channels of a ResNeXt at q = 0.7. So units leave equal groups.
    """
    inside = channels.view(groups, -1)  # (groups, channels in each)
    filters = rows.view(groups, -1)
    if groups >= max(inside.shape[1], filters.shape[1]) or inside.shape[1] == 1:
        call.join(inside, inside[:, :1])
        call.join(filters, inside[:, :1])
        call.findings.group_counts[call.node] = inside[:, 0]
        return
    call.join(inside, inside[:1])
    call.join(inside[0], weight.along(call.labels, 1), READS_FIXED)
    call.join(filters, filters[:1])
    call.read("input", 1, channels, weight)


@rule(
    "aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d", parameters=("weight", "bias")
)
def transposed(call: Call) -> Any:
    """Weight (in, out / groups, ...): its first dimension is read, its second makes units in every group."""
    x, weight = call.known["input"], call.known["weight"]
    if not isinstance(weight, Raw) or (varying(x) and 1 not in varying(x)):
        return call.refill(COMPUTED if not isinstance(weight, Raw) else "it mixes neighbouring units")
    if x.ndim != len(weight.shape):
        return call.frozen_everything("it runs on one image without a dimension for rows")
    channels = united(call, x, 1)
    groups = call.args.get("groups", 1)
    inside = channels.view(groups, -1)  # (groups, channels in each)
    call.join(channels, weight.along(call.labels, 0), READS_FIXED)
    if groups > 1 and groups >= max(inside.shape[1], weight.shape[1]):
        call.join(inside, inside[:, :1])
        call.findings.group_counts[call.node] = inside[:, 0]
        rows = inside[:, 0].repeat_interleave(weight.shape[1])
    else:
        call.join(inside, inside[:1])
        call.read("input", 1, channels, weight, column=0)
        rows = weight.along(call.labels, 1).repeat(groups)
    call.meet("bias", 0, rows)
    return spread(rows, 1, call.shape)


@rule("aten.embedding", parameters=("weight",))
def embedding(call: Call) -> Any:
    """Rows of a table: its columns are units, its rows what the inputs name."""
    weight = call.known["weight"]
    if not isinstance(weight, Raw):
        return call.frozen_everything("its table is computed")
    call.labels.freeze(weight.along(call.labels, 0), call.place, "the inputs name its rows")
    return spread(weight.along(call.labels, 1), -1, call.shape)


@rule("aten.embedding_bag", parameters=("weight",))
def embedding_bag(call: Call) -> Any:
    """Sums, means or maxima of a table's rows: its columns are units."""
    weight = call.known["weight"]
    if not isinstance(weight, Raw):
        return call.frozen_everything("its table is computed")
    call.labels.freeze(weight.along(call.labels, 0), call.place, "the inputs name its rows")
    bags, *others = call.result
    return [spread(weight.along(call.labels, 1), -1, bags.shape), *call.fixed(others)]


@rule("aten.bilinear", parameters=("weight", "bias"))
def bilinear(call: Call) -> Any:
    """y_o = Σ x_i W_oij z_j + b_o: sums over the units of both, and makes new ones."""
    weight = call.known["weight"]
    if not isinstance(weight, Raw):
        return call.refill(COMPUTED)
    for column, name in ((1, "input1"), (2, "input2")):
        read_columns(call, name, -1, weight, column)
    rows = weight.along(call.labels, 0)
    call.meet("bias", 0, rows)
    return spread(rows, -1, call.shape)
