"""Multiply-accumulates of kernels that PyTorch's own counter does not know: recurrent, fused, grouped."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import sdpa_flop_count

Macs = Callable[..., int]
"""(arguments of the kernel, tensors as tensors) → multiply-accumulates."""

KERNELS: dict[Any, Macs] = {}
"""Kernel → its multiply-accumulates."""


def kernel(*names: str) -> Callable[[Macs], Macs]:
    """Register the count of kernels by name; a PyTorch that does not have one of them goes without it.

    Args:
        names: in PyTorch's namespace ``aten``.
    """

    def register(function: Macs) -> Macs:
        for name in names:
            if hasattr(torch.ops.aten, name):
                KERNELS[getattr(torch.ops.aten, name)] = function
        return function

    return register


def formulas() -> dict[Any, Callable[..., int]]:
    """Kernel → function of its arguments and ``out_val``: two floating-point operations to each, as
    ``FlopCounterMode`` takes them.
    """
    return {packet: _flops(function) for packet, function in KERNELS.items()}


def _flops(function: Macs) -> Callable[..., int]:
    def flops(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
        return 2 * function(*args, **kwargs)

    flops._get_raw = True  # type: ignore[attr-defined]  # tensors, not their shapes: some are nested
    return flops


@kernel("_scaled_dot_product_flash_attention_for_cpu")
def attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """softmax(q kᵀ) v; the counter itself knows only CUDA's."""
    return int(sdpa_flop_count(query.shape, key.shape, value.shape)) // 2


@kernel("mv", "dot", "vdot")
def product(first: Tensor, second: Tensor) -> int:
    """A matrix times a vector, or two vectors: every number of the first is multiplied once."""
    return first.numel()


@kernel("addmv")
def product_and_sum(start: Tensor, matrix: Tensor, *_: Any, **__: Any) -> int:
    """start + matrix · vector."""
    return matrix.numel()


@kernel("addr")
def outer_product(start: Tensor, first: Tensor, second: Tensor, **_: Any) -> int:
    """start + first ⊗ second."""
    return first.numel() * second.numel()


@kernel("_int_mm")
def matrices(first: Tensor, second: Tensor, **_: Any) -> int:
    """(n, k) @ (k, m)."""
    return first.numel() * second.shape[-1]


@kernel("addbmm", "_addmm_activation", "_sparse_addmm")
def matrices_and_sum(start: Tensor, first: Tensor, second: Tensor, **_: Any) -> int:
    """start + first @ second, of all matrices of a batch; of a sparse first one only what it holds."""
    stored = first._nnz() if first.is_sparse else first.numel()
    return stored * second.shape[-1]


@kernel("_grouped_mm", "_scaled_grouped_mm")
def grouped_matrices(first: Tensor, second: Tensor, *_: Any, **__: Any) -> int:
    """A product for each group (an expert, say): rows, or what is summed over, are cut into the groups.

    (rows, k) and (groups, k, m); (groups, n, k) and (k, columns); (groups, n, k) and (groups, k, m); or
    (n, k) and (k, m) with k cut. Each row meets one group's matrix, so that it counts what ``first`` holds
    times m, but in the second form, where each column meets one group's.
    """
    if first.ndim == 3 and second.ndim == 2:
        return first.shape[1] * second.numel()
    return first.numel() * second.shape[-1]


@kernel("_trilinear")
def trilinear(
    first: Tensor, second: Tensor, third: Tensor,
    expand1: list[int], expand2: list[int], expand3: list[int], sumdim: list[int], *_: Any, **__: Any,
) -> int:  # fmt: skip
    """Σ of first · second · third, one factor after the other: ``nn.Bilinear``'s x₁ᵀ W, and that times x₂."""
    shapes = [_unsqueezed(x, dims) for x, dims in ((first, expand1), (second, expand2), (third, expand3))]
    both = [max(a, b) for a, b in zip(*shapes[:2], strict=True)]
    gone = [d for d in sumdim if shapes[2][d] == 1]  # summed over before the third comes in
    rest = [max(a, c) for d, (a, c) in enumerate(zip(both, shapes[2], strict=True)) if d not in gone]
    return int(math.prod(both) + math.prod(rest))


def _unsqueezed(x: Tensor, dims: list[int]) -> list[int]:
    shape = list(x.shape)
    for d in sorted(dims):
        shape.insert(d, 1)
    return shape


@kernel("conv_tbc")
def time_convolution(x: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> int:
    """(length, rows, channels) by (width, channels, outputs)."""
    return (x.shape[0] + 2 * pad - weight.shape[0] + 1) * x.shape[1] * weight.numel()


@kernel("_cdist_forward", "_euclidean_dist")
def distances(first: Tensor, second: Tensor, p: float = 2.0, *_: Any, **__: Any) -> int:
    """Distances of rows: a square a dimension in the Euclidean, nothing to multiply in other ones."""
    lead: tuple[int, ...] = torch.broadcast_shapes(first.shape[:-2], second.shape[:-2])
    return math.prod(lead) * first.shape[-2] * second.shape[-2] * first.shape[-1] if p == 2.0 else 0


@kernel("_embedding_bag", "_embedding_bag_forward_only")
def weighted_bags(
    table: Tensor, indices: Tensor, offsets: Tensor, scale_grad_by_freq: bool = False,
    mode: int = 0, sparse: bool = False, per_sample_weights: Tensor | None = None, *_: Any, **__: Any,
) -> int:  # fmt: skip
    """Sums of rows of a table: products only where each row has a weight of its own."""
    return 0 if per_sample_weights is None else indices.numel() * table.shape[1]


@kernel("mkldnn_rnn_layer")
def recurrent_layer(x: Tensor, from_input: Tensor, from_state: Tensor, *_: Any, **__: Any) -> int:
    """One layer and direction: (steps, rows, features) by both matrices at each step."""
    return x.shape[0] * x.shape[1] * (from_input.numel() + from_state.numel())


@kernel("_cudnn_rnn", "miopen_rnn")
def recurrent_layers(x: Tensor, weights: list[Tensor], *rest: Any, **_: Any) -> int:
    """All layers and directions at once: every matrix at each step; x is (values, features) if packed."""
    steps = x.shape[0] if x.ndim == 2 else x.shape[0] * x.shape[1]
    return steps * sum(weight.numel() for weight in weights if weight.ndim == 2)


@kernel("_transformer_encoder_layer_fwd")
def encoder_layer(
    x: Tensor, embed_dim: int, num_heads: int, qkv: Tensor, qkv_bias: Tensor, out: Tensor, out_bias: Tensor,
    use_gelu: bool, norm_first: bool, eps: float, scale1: Tensor, shift1: Tensor, scale2: Tensor,
    shift2: Tensor, up: Tensor, up_bias: Tensor, down: Tensor, *_: Any, **__: Any,
) -> int:  # fmt: skip
    """A whole layer of a frozen encoder: its matrices at each position, and the products of attention."""
    return _tokens(x, embed_dim) * sum(w.numel() for w in (qkv, out, up, down)) + _pairs(x, x) * 2 * embed_dim


@kernel("_native_multi_head_attention", "_triton_multi_head_attention")
def heads(
    query: Tensor, key: Tensor, value: Tensor, embed_dim: int, num_head: int,
    qkv: Tensor, qkv_bias: Tensor, out: Tensor, *_: Any, **__: Any,
) -> int:  # fmt: skip
    """Frozen attention: projections of queries, keys and values, the products, and what mixes the heads."""
    third = qkv.numel() // 3
    projected = _tokens(query, embed_dim) * (third + out.numel())
    projected += (_tokens(key, embed_dim) + _tokens(value, embed_dim)) * third
    return projected + _pairs(query, key) * 2 * embed_dim


def _lengths(x: Tensor) -> list[int]:
    """Positions of each row; rows of a nested tensor have different ones."""
    if x.is_nested:
        return [len(row) for row in x.unbind()]
    return [x.shape[1]] * x.shape[0]


def _tokens(x: Tensor, width: int) -> int:
    return x.numel() // width


def _pairs(query: Tensor, key: Tensor) -> int:
    """Pairs of positions that meet, over all rows."""
    return sum(q * k for q, k in zip(_lengths(query), _lengths(key), strict=True))
