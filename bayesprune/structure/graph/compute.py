"""Operations that sum over units and make new ones, and those that treat every unit on its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bayesprune.structure.graph.call import Call, Raw, Read, argument_node, is_fixed, operation, rule, varying
from bayesprune.structure.graph.labels import along, compact, spread

CROSSES = "its units run along several dimensions"


@rule("aten.linear")
def linear(call: Call) -> Any:
    """y = x Wᵀ + b: the last dimension is summed over, W's rows are new units."""
    return _contract(call, "input", call.known["weight"], call.known.get("bias"))


@rule("aten.addmm")
def addmm(call: Call) -> Any:
    """y = b + x W."""
    weight = call.known["mat2"]
    return _contract(call, "mat1", _turned(weight), call.known["self"])


def _united(call: Call, x: Tensor, dim: int) -> Tensor:
    """(size,), labels along one dimension; those that differ along others become one unit."""
    vector, dim = along(x, dim), dim % x.ndim
    if vector is not None:
        return vector
    if dim not in varying(x):
        call.freeze(x, CROSSES)
        return torch.zeros(x.shape[dim], dtype=torch.long)
    small = compact(x)
    first = small[tuple(slice(None) if d == dim else slice(0, 1) for d in range(x.ndim))]
    call.join(small, first)
    return first.expand([x.shape[d] if d == dim else 1 for d in range(x.ndim)]).reshape(-1)


def _turned(weight: Any) -> Any:
    return weight.permuted([1, 0]) if isinstance(weight, Raw) and len(weight.shape) == 2 else weight


def _contract(call: Call, name: str, weight: Any, bias: Any = None) -> Any:
    """x Wᵀ + b for a weight (out, in) that is a parameter."""
    x = call.known[name]
    if not isinstance(weight, Raw) or isinstance(x, Raw):
        return call.frozen_everything("its weight is computed, and such weights have no rule yet")
    columns = _united(call, x, -1)
    call.join(columns, weight.along(call.labels, 1), "it reads what is fixed")
    call.read(name, -1, columns, weight)
    rows = weight.along(call.labels, 0)
    if isinstance(bias, Raw):
        call.join(rows, bias.along(call.labels, -1))
    elif isinstance(bias, Tensor):
        call.freeze(bias, "it is added to new units")
        call.labels.freeze(rows, call.place, "its bias is computed")
    return spread(rows, -1, call.shape)


@rule("aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.convolution")
def convolution(call: Call) -> Any:
    """Channels are summed over, filters are new units; grouped channels stay among themselves."""
    x, weight, bias = call.known["input"], call.known["weight"], call.known.get("bias")
    if not isinstance(weight, Raw) or isinstance(x, Raw) or len(x.shape) != len(weight.shape):
        return call.frozen_everything("its weight is computed, and such weights have no rule yet")
    groups, transposed = call.args.get("groups", 1), call.args.get("transposed", False)
    channels = _united(call, x, 1)
    if transposed:
        return call.frozen_everything("transposed convolutions of this form have no rule yet")
    rows = weight.along(call.labels, 0)
    if isinstance(bias, Raw):
        call.join(rows, bias.along(call.labels, 0))
    if groups == 1:
        call.join(channels, weight.along(call.labels, 1), "it reads what is fixed")
        call.read("input", 1, channels, weight)
    else:
        _grouped(call, channels, rows, weight, groups)
    return spread(rows, 1, call.shape)


def _grouped(call: Call, channels: Tensor, rows: Tensor, weight: Raw, groups: int) -> None:
    """Whole groups are units where there are many of them; else the same position in every group."""
    inside = channels.view(groups, -1)  # (groups, channels in each)
    filters = rows.view(groups, -1)
    if groups >= max(inside.shape[1], filters.shape[1]) or inside.shape[1] == 1:
        call.join(inside, inside[:, :1])
        call.join(filters, inside[:, :1])
        call.findings.group_counts[call.node] = inside[:, 0]
        return
    call.join(inside, inside[:1])
    call.join(inside[0], weight.along(call.labels, 1), "it reads what is fixed")
    call.join(filters, filters[:1])
    call.read("input", 1, channels, weight)


@rule("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def transposed(call: Call) -> Any:
    """Weight (in, out / groups, ...)."""
    x, weight, bias = call.known["input"], call.known["weight"], call.known.get("bias")
    channels = along(x, 1) if not isinstance(x, Raw) else None
    if not isinstance(weight, Raw) or channels is None or call.args.get("groups", 1) != 1:
        return call.frozen_everything("grouped transposed convolutions have no rule yet")
    call.join(channels, weight.along(call.labels, 0), "it reads what is fixed")
    call.read("input", 1, channels, weight, column=0)
    rows = weight.along(call.labels, 1)
    if isinstance(bias, Raw):
        call.join(rows, bias.along(call.labels, 0))
    return spread(rows, 1, call.shape)


@rule("aten.embedding")
def embedding(call: Call) -> Any:
    """Rows of a table: its columns are units, its rows what the inputs name."""
    weight = call.known["weight"]
    if not isinstance(weight, Raw):
        return call.frozen_everything("its table is computed")
    call.labels.freeze(weight.along(call.labels, 0), call.place, "the inputs name its rows")
    return spread(weight.along(call.labels, 1), -1, call.shape)


@rule("aten.batch_norm", "aten.instance_norm")
def batch_norm(call: Call) -> Any:
    """Every channel on its own, with parameters and statistics of its own."""
    x = call.known["input"]
    vector = along(x, 1)
    if vector is None:
        return call.frozen_everything(CROSSES)
    for name in ("weight", "bias", "running_mean", "running_var"):
        parameter = call.known.get(name)
        if isinstance(parameter, Raw):
            call.join(vector, parameter.along(call.labels, 0))
    return x


@rule("aten.layer_norm", "aten.rms_norm")
def layer_norm(call: Call) -> Any:
    """Statistics over units: under gates they are those of the open ones, so that a plain norm is left."""
    x, dims = call.known["input"], len(call.args["normalized_shape"])
    normalised = set(range(x.ndim - dims, x.ndim))
    if not varying(x) & normalised:
        for name in ("weight", "bias"):
            if isinstance(call.known.get(name), Raw):
                call.freeze(call.known[name], "it normalises over what is fixed")
        return x
    vector = along(x, -1)
    if vector is None or dims > 1:
        return call.frozen_everything("it normalises over units of several kinds")
    for name in ("weight", "bias"):
        if isinstance(call.known.get(name), Raw):
            call.join(vector, call.known[name].along(call.labels, 0))
    source = argument_node(call.node, "input")
    assert source is not None
    call.findings.norms.append(Read(call.node, source, x.ndim - 1, vector, None))
    return x


_SPATIAL = {
    **{f"aten.{kind}_pool{d}d": d for kind in ("max", "avg", "adaptive_avg", "adaptive_max", "lp")
       for d in (1, 2, 3)},
    **{f"aten.max_pool{d}d_with_indices": d for d in (2, 3)},
    **{f"aten._adaptive_avg_pool{d}d": d for d in (2, 3)},
    **{f"aten.upsample_{kind}": d for d, kinds in
       {1: ("nearest1d", "linear1d"), 2: ("nearest2d", "bilinear2d", "bicubic2d", "_nearest_exact2d"),
        3: ("nearest3d", "trilinear3d")}.items() for kind in kinds},
}  # fmt: skip


@rule(*_SPATIAL)
def spatial(call: Call) -> Any:
    """Pooling and resizing: within a channel, over its last dimensions."""
    x = call.known["self"] if "self" in call.known else call.known["input"]
    last = _SPATIAL[operation(call)]
    if varying(x) & set(range(x.ndim - last, x.ndim)):
        call.freeze(x, "it pools across units")
        return call.fixed()
    index = tuple(slice(None) if d < x.ndim - last else slice(0, 1) for d in range(x.ndim))
    if isinstance(call.result, Tensor):
        return x[index].expand(call.result.shape)
    return [x[index].expand(part.shape) for part in call.result]


@rule("aten.mean", "aten.sum", "aten.amax", "aten.amin", "aten.var", "aten.std", "aten.var_mean",
      "aten.std_mean", "aten.norm", "aten.linalg_vector_norm", "aten.logsumexp", "aten.prod", "aten.max",
      "aten.min", "aten.median", "aten.all", "aten.any", "aten.argmax", "aten.argmin")  # fmt: skip
def reduction(call: Call) -> Any:
    """One number from many: within a unit, or else the units stay."""
    x = call.known["self"]
    if isinstance(x, Raw):
        return call.frozen_everything("it is reduced")
    dims = call.args.get("dim")
    dims = range(x.ndim) if dims is None or dims == [] else dims if isinstance(dims, list | tuple) else [dims]
    dims = {d % x.ndim for d in dims} if x.ndim else set()
    if varying(x) & dims:
        if len(varying(x)) == 1:  # over all units, into what belongs to none
            if operation(call) != "aten.sum":
                call.freeze(x, "it is reduced over units")
            else:
                dim = varying(x).pop()
                call.read("self", dim, along(x, dim))  # type: ignore[arg-type]
            return call.fixed()
        small = compact(x)
        index = tuple(slice(0, 1) if d in dims else slice(None) for d in range(x.ndim))
        call.join(small, small[index])  # what is reduced into one number is one unit
    kept = x[tuple(slice(0, 1) if d in dims else slice(None) for d in range(x.ndim))]
    if not call.args.get("keepdim", False):
        kept = kept.reshape([s for d, s in enumerate(kept.shape) if d not in dims])
    if isinstance(call.result, Tensor):
        return kept.expand(call.result.shape)
    return [kept.expand(part.shape) for part in call.result]


@rule("aten.softmax", "aten._softmax", "aten.log_softmax", "aten._log_softmax", "aten.cumsum",
      "aten.cumprod", "aten.logcumsumexp")  # fmt: skip
def across(call: Call) -> Any:
    """Every number depends on all along one dimension."""
    x = call.known["self"]
    if isinstance(x, Raw) or call.args["dim"] % x.ndim in varying(x):
        return call.frozen_everything("it reads across units")
    return x


@rule("aten.matmul", "aten.bmm", "aten.mm", "aten.baddbmm")
def matmul(call: Call) -> Any:
    """A parameter's product, or one of two activations, as in attention."""
    names = [n for n, known, _ in call.tensors() if n in ("self", "other", "mat1", "mat2", "input")]
    if len(names) != 2:
        return call.frozen_everything("this product has no rule yet")
    first, second = (call.known[name] for name in names)
    if isinstance(second, Raw) and len(second.shape) == 2:
        return _contract(call, names[0], _turned(second))
    if isinstance(first, Raw) or isinstance(second, Raw) or min(first.ndim, second.ndim) < 2:
        return call.frozen_everything("a product of parameters")
    return _product(call, names[0], first, second)


def _product(call: Call, name: str, first: Tensor, second: Tensor) -> Any:
    """(..., n, k) @ (..., k, m) of activations."""
    if is_fixed(first) and is_fixed(second):
        return call.fixed()
    dims = len(call.shape)
    a = first.expand(call.shape[:-2] + first.shape[-2:])
    b = second.expand(call.shape[:-2] + second.shape[-2:])
    batch_a, batch_b = varying(a) & set(range(dims - 2)), varying(b) & set(range(dims - 2))
    if batch_a or batch_b:
        return _per_batch(call, a, b, batch_a | batch_b)
    over_a, over_b = varying(a), varying(b)
    if over_a <= {dims - 1} and over_b <= {dims - 2} and (over_a or over_b):
        inner_a, inner_b = along(a, -1), along(b, -2)
        call.join(inner_a, inner_b)  # type: ignore[arg-type]
        call.read(name, -1, inner_a)  # type: ignore[arg-type]
        return call.fixed()
    if is_fixed(a) and over_b == {dims - 1}:
        return b[..., :1, :].expand(call.shape)
    if is_fixed(b) and over_a == {dims - 2}:
        return a[..., :1].expand(call.shape)
    return call.frozen_everything("a product over units of several kinds")


def _per_batch(call: Call, a: Tensor, b: Tensor, batch: set[int]) -> Any:
    """Heads: all that belongs to one position of the batch dimensions is one unit."""
    if len(batch) != 1:
        return call.frozen_everything(CROSSES)
    dim = batch.pop()
    heads = torch.zeros(a.shape[dim], dtype=torch.long)
    for labels in (a, b):
        rows = labels.movedim(dim, 0).reshape(labels.shape[dim], -1)
        if is_fixed(rows) and 0 in varying(labels.movedim(dim, 0)):
            return call.frozen_everything("heads meet what is fixed")
        if is_fixed(rows):
            source = (
                call.args["self"] if labels is a else call.args["other" if "other" in call.args else "mat2"]
            )
            if source.ndim == len(call.shape) and source.shape[dim] > 1:
                return call.frozen_everything("heads meet what is fixed")
            continue
        call.join(rows, rows[:, :1])
        if is_fixed(heads):
            heads = rows[:, 0]
        else:
            call.join(heads, rows[:, 0])
    return spread(heads, dim, call.shape)


@rule("aten.scaled_dot_product_attention")
def attention(call: Call) -> Any:
    """Whole heads are units: (rows, heads, positions, width)."""
    q, k, v = (call.known[name] for name in ("query", "key", "value"))
    if any(isinstance(x, Raw) or x.ndim != 4 for x in (q, k, v)) or len({x.shape[1] for x in (q, k, v)}) > 1:
        return call.frozen_everything("attention of this form has no rule yet")
    mask = call.known.get("attn_mask")
    if mask is not None and (
        isinstance(mask, Raw) or not is_fixed(mask) or (mask.ndim > 3 and mask.shape[1] > 1)
    ):
        return call.frozen_everything("attention with a mask for each head has no rule yet")
    if any(varying(x) & {0, 2} for x in (q, k, v)):
        return call.frozen_everything("its units run along rows or positions")
    parts = [x[0, :, 0] for x in (q, k, v)]  # (heads, width)
    heads = next((p[:, :1] for p in parts if not is_fixed(p)), None)
    if heads is None:
        return call.fixed()
    for part in parts:
        call.join(part, heads)
    return spread(heads[:, 0], 1, call.shape)
