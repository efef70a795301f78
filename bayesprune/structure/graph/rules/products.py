"""Products of activations, as in attention, and by parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bayesprune.structure.graph.rules.call import CROSSES, Call, Raw, is_fixed, rule, united, varying
from bayesprune.structure.graph.rules.labels import along, compact, kinds, spread
from bayesprune.structure.graph.rules.linear import contract, read_columns, turned


@rule("aten.matmul", "aten.bmm", "aten.mm", "aten.baddbmm", parameters=("self", "other", "mat1", "mat2"))
def matmul(call: Call) -> Any:
    """A parameter's product, or one of two activations, as in attention."""
    names = [n for n, known, _ in call.tensors() if n in ("self", "other", "mat1", "mat2", "input")]
    if len(names) != 2:
        return call.frozen_everything("this product has no rule yet")
    second = call.known[names[1]]
    if isinstance(second, Raw) and len(second.shape) <= 2:
        return contract(call.activations(frozenset(names[1:])), names[0], turned(second))
    if isinstance(second, Raw):  # one weight for each expert
        batch = set(range(len(second.shape) - 2))
        call.freeze_along(second, batch, "it is one weight for each of them")
        last = replace(second, shape=second.shape[-2:], dims=second.dims[-2:])
        return contract(call.activations(frozenset(names[1:])), names[0], turned(last))
    first = call.known[names[0]]
    if isinstance(first, Raw) and len(first.shape) > 1 and first.name in call.findings.learnt:
        return _from_left(call.activations(frozenset(names[:1])), names[1], first)
    call = call.activations(frozenset())  # a matrix that mixes the numbers of every unit, as graphs have it
    first, second = (call.known[name] for name in names)
    if min(first.ndim, second.ndim) < 2:
        return call.frozen_everything("a product with a vector that is computed has no rule yet")
    return product(call, first, second, call.shape, lambda units: call.read(names[0], -1, units))


def _from_left(call: Call, name: str, weight: Raw) -> Any:
    """W x for a parameter (..., out, in): x's last dimension but one is summed over, W's rows are units."""
    x = call.known[name]
    call.freeze_along(weight, set(range(len(weight.shape) - 2)), "it is one weight for each of them")
    if x.ndim < 2:
        call.freeze(weight, "a product with a vector that is computed has no rule yet")
        call.freeze(x, "a product with a vector that is computed has no rule yet")
        return call.fixed()
    if varying(x) and x.ndim - 2 not in varying(x):  # it mixes the numbers of every unit
        call.freeze(weight, "it mixes the numbers of every unit")
        return x[..., :1, :].expand(call.shape)
    read_columns(call, name, -2, weight, -1)
    return spread(weight.along(call.labels, -2), -2, call.shape)


def product(
    call: Call, first: Tensor, second: Tensor, shape: torch.Size, read: Callable[[Tensor], None]
) -> Any:
    """(..., n, k) @ (..., k, m) of activations.

    Args:
        call: the operation.
        first: (..., n, k), labels; dimensions in which it is repeated are of size one, or missing.
        second: (..., k, m), labels alike.
        shape: of the result.
        read: notes that k's units are summed over.

    Returns:
        Labels of the result.
    """
    if is_fixed(first) and is_fixed(second):
        return torch.zeros((), dtype=torch.long).expand(shape)
    dims = len(shape)
    a = first.expand(shape[:-2] + first.shape[-2:])
    b = second.expand(shape[:-2] + second.shape[-2:])
    batch_a, batch_b = varying(a) & set(range(dims - 2)), varying(b) & set(range(dims - 2))
    if batch_a or batch_b:
        return _per_batch(call, (first, second), (a, b), batch_a | batch_b, shape, read)
    over_a, over_b = varying(a), varying(b)
    if over_a <= {dims - 1} and over_b <= {dims - 2} and (over_a or over_b):
        inner_a, inner_b = along(a, -1), along(b, -2)
        call.join(inner_a, inner_b)  # type: ignore[arg-type]
        read(inner_a)  # type: ignore[arg-type]
        return torch.zeros((), dtype=torch.long).expand(shape)
    if is_fixed(a) and over_b == {dims - 1}:
        return b[..., :1, :].expand(shape)
    if is_fixed(b) and over_a == {dims - 2}:
        return a[..., :1].expand(shape)
    if over_a == over_b == {dims - 2} and kinds(a) > kinds(b):  # states of channels, summed up
        call.freeze(b, SUMMED)
        return a[..., :1].expand(shape)
    if over_a == over_b == {dims - 1} and kinds(b) > kinds(a):
        call.freeze(a, SUMMED)
        return b[..., :1, :].expand(shape)
    if dims - 2 in over_a and over_b == {dims - 2}:  # the same of all rows is summed over
        call.join(compact(a), compact(a[..., :1, :]))
        return product(call, a[..., :1, :].expand(a.shape), b, shape, read)
    if dims - 1 in over_b and over_a == {dims - 1}:
        call.join(compact(b), compact(b[..., :1]))
        return product(call, a, b[..., :1].expand(b.shape), shape, read)
    call.refill("a product over units of several kinds")
    return torch.zeros((), dtype=torch.long).expand(shape)


SUMMED = "it is summed over within units of another kind"


def _per_batch(
    call: Call,
    given: tuple[Tensor, Tensor],
    operands: tuple[Tensor, Tensor],
    batch: set[int],
    shape: torch.Size,
    read: Callable[[Tensor], None],
) -> Any:
    """Heads: all that belongs to one position of the batch dimensions is one unit."""
    fixed = torch.zeros((), dtype=torch.long).expand(shape)
    if len(batch) != 1:
        call.frozen_everything(CROSSES)
        return fixed
    dim = batch.pop()
    if any(not is_fixed(whole) and dim not in varying(whole) for whole in operands):
        return _shared(call, operands, dim, shape, read)
    heads = torch.zeros(shape[dim], dtype=torch.long)
    for labels, whole in zip(given, operands, strict=True):
        if is_fixed(labels):
            if labels.ndim == len(shape) and labels.shape[dim] > 1:
                call.frozen_everything("heads meet what is fixed")
                return fixed
            continue
        rows = compact(whole.movedim(dim, 0)).reshape(shape[dim], -1)
        call.join(rows, rows[:, :1])
        if is_fixed(heads):
            heads = rows[:, 0]
        else:
            call.join(heads, rows[:, 0])
    return spread(heads, dim, shape)


def _shared(
    call: Call, operands: tuple[Tensor, Tensor], dim: int, shape: torch.Size, read: Callable[[Tensor], None]
) -> Any:
    """One operand is the same for all heads and has units of its own: what is so in one head is so in all."""
    alike = []
    for whole in operands:
        one = whole.narrow(dim, 0, 1)
        if dim in varying(whole):
            call.join(compact(whole), compact(one))
        alike.append(one.expand(whole.shape))
    return product(call, alike[0], alike[1], shape, read)


@rule("aten.scaled_dot_product_attention", parameters=("attn_mask",))
def attention(call: Call) -> Any:
    """Whole heads are units: (rows, heads, positions, width)."""
    q, k, v = (call.known[name] for name in ("query", "key", "value"))
    if any(x.ndim != 4 for x in (q, k, v)) or not _grouped(q, k, v):
        return call.frozen_everything("attention of this form has no rule yet")
    if any(varying(x) & {0, 2} for x in (q, k, v)):
        return call.frozen_everything("its units run along rows or positions")
    count = q.shape[1]
    parts = [x[0, :, 0].repeat_interleave(count // x.shape[1], 0) for x in (q, k, v)]  # (heads, width)
    heads = next((p[:, :1] for p in parts if not is_fixed(p)), None)
    if heads is None:
        return call.frozen_everything("heads meet what is fixed")
    for part in parts:
        call.join(part, heads)
    _masked(call, heads[:, 0])
    return spread(heads[:, 0], 1, call.shape)


def _grouped(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether every head of keys and values serves as many heads of queries."""
    return k.shape[1] == v.shape[1] and q.shape[1] % k.shape[1] == 0


def _masked(call: Call, heads: Tensor) -> None:
    """A mask, or a bias, may be one for each head, and then goes with it."""
    mask = call.known.get("attn_mask")
    if not isinstance(mask, Tensor | Raw):
        return
    dim = len(mask.shape) - 3
    if isinstance(mask, Raw):
        for other in mask.long_dims():
            if other == dim:
                call.join(heads, mask.along(call.labels, dim))
            else:
                call.freeze_along(mask, {other}, "it is a mask of positions")
    elif dim < 0 or mask.shape[dim] == 1:
        call.freeze(mask, "it is a mask for all heads")
    elif is_fixed(mask):
        call.select("attn_mask", dim, heads)
    else:
        call.join(heads, united(call, mask, dim))
