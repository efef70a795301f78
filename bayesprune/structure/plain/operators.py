"""The operations that a graph read from a file may run: a fixed list, and nothing beyond it.

All of them compute tensors from tensors and numbers. What reads or writes files, resizes or replaces
storage, reads memory without checks (normalisations that are told their sizes), hands out memory as it was
left by others (``empty``), or asks about the process is not here, and so cannot be named in a file.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload

POINTWISE = """
    abs absolute acos acosh add addcdiv addcmul alpha_dropout angle asin asinh atan atan2 atanh bernoulli
    bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil celu clamp
    clamp_max clamp_min clip copysign cos cosh deg2rad digamma div divide dropout elu eq erf erfc erfinv
    exp exp2 expm1 exponential feature_alpha_dropout feature_dropout fill float_power floor floor_divide fmax
    fmin fmod frac ge gelu greater greater_equal gt hardshrink hardsigmoid hardswish hardtanh heaviside hypot
    i0 isclose isfinite isinf isnan ldexp le leaky_relu lerp less less_equal lgamma log log10 log1p log2
    log_sigmoid logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logit lt masked_fill
    maximum minimum mish mul multiply nan_to_num native_dropout ne neg negative normal not_equal positive pow
    prelu rad2deg reciprocal relu relu6 remainder round rrelu rsqrt rsub selu sgn sigmoid sign signbit silu
    sin sinc sinh softplus softshrink sqrt square sub subtract tan tanh threshold true_divide trunc uniform
    where xlogy zero special_erf special_erfc special_expit special_expm1 special_log1p special_ndtr
    special_xlog1py __and__ __or__ __xor__
"""

REDUCING = """
    all amax amin aminmax any argmax argmin argsort count_nonzero cummax cummin cumprod cumsum diff kthvalue
    linalg_matrix_norm linalg_norm linalg_vector_norm log_softmax logcumsumexp logsumexp max mean median min
    mode nanmean nansum norm prod quantile softmax _log_softmax _safe_softmax _softmax sort std std_mean sum
    topk trace var var_mean
"""

PRODUCTS = """
    addbmm addmm addmv addr baddbmm bilinear bmm cdist chain_matmul conv1d conv2d conv3d conv_depthwise3d
    conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution _convolution cosine_similarity
    cross dist dot einsum embedding embedding_bag gru gru_cell inner kron linalg_cross linalg_matmul
    linalg_multi_dot linalg_vecdot linear lstm lstm_cell matmul mm mv outer pairwise_distance rnn_relu
    rnn_relu_cell rnn_tanh rnn_tanh_cell scaled_dot_product_attention tensordot _trilinear vdot
    linalg_cholesky linalg_det linalg_inv linalg_matrix_exp linalg_solve fft_fft fft_fft2 fft_fftn
    fft_fftshift fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2
    fft_rfftn
"""

NORMS_AND_POOLS = """
    batch_norm group_norm instance_norm layer_norm rms_norm native_layer_norm norm_except_dim renorm
    _weight_norm adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d _adaptive_avg_pool2d
    _adaptive_avg_pool3d avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool1d_with_indices max_pool2d
    max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool2d max_unpool3d
    fractional_max_pool2d fractional_max_pool3d affine_grid_generator grid_sampler grid_sampler_2d
    grid_sampler_3d upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
    upsample_nearest2d upsample_nearest3d upsample_trilinear3d _upsample_bicubic2d_aa _upsample_bilinear2d_aa
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
"""

MOVING = """
    adjoint alias atleast_1d atleast_2d atleast_3d block_diag broadcast_tensors broadcast_to cat
    channel_shuffle chunk clone col2im column_stack concat concatenate constant_pad_nd contiguous copy detach
    diag diag_embed diagonal dsplit dstack expand expand_as flatten flip fliplr flipud gather glu hsplit
    hstack im2col index index_add index_copy index_fill index_put index_reduce index_select lift_fresh
    lift_fresh_copy mH mT masked_scatter meshgrid moveaxis movedim narrow native_channel_shuffle numpy_T
    one_hot pad permute pixel_shuffle pixel_unshuffle ravel reflection_pad1d reflection_pad2d reflection_pad3d
    repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d reshape reshape_as roll
    rot90 row_stack scatter scatter_add scatter_reduce select select_scatter slice slice_scatter split
    split_with_sizes squeeze stack swapaxes swapdims t take take_along_dim tensor_split tile to _to_copy
    transpose tril triu type_as unbind unflatten unfold unsafe_chunk unsafe_split unsafe_split_with_sizes
    unsqueeze _unsafe_view view view_as view_as_complex view_as_real vsplit vstack real imag conj complex
    resolve_conj resolve_neg
"""

MAKING = """
    arange bucketize bartlett_window blackman_window eye full full_like hamming_window
    hann_window linspace logspace new_full new_ones new_zeros ones ones_like rand rand_like randint
    randint_like randn randn_like randperm scalar_tensor searchsorted sym_numel sym_size tril_indices
    triu_indices zeros zeros_like
"""

ATEN = frozenset(" ".join([POINTWISE, REDUCING, PRODUCTS, NORMS_AND_POOLS, MOVING, MAKING]).split())
"""Names in PyTorch's namespace ``aten``; the form that works in place (``relu_``) is allowed with each."""

OWN: set[str] = set()
"""Names of operations outside of PyTorch, ``'mylib::scale'``, that this program has said what units do in."""


def allow(name: str) -> None:
    """Let graphs that are written and read name an operation of somebody's own.

    Only programs call this, by `bayesprune.structure.rule`; a file cannot.

    Args:
        name: ``'mylib::scale'``.
    """
    if not name.startswith("aten::"):
        OWN.add(name)


FILLED = {
    "aten::empty.memory_format": "aten::zeros.default",
    "aten::empty_like.default": "aten::zeros_like.default",
    "aten::new_empty.default": "aten::new_zeros.default",
}
"""What networks make to be filled at once, as stochastic depth does, → what is written instead of it."""


def power(base: Any, exponent: Any) -> Any:
    """A power of real numbers, ``math.pow`` that takes symbols too: one of whole numbers may have no end."""
    return torch.sym_float(base) ** torch.sym_float(exponent)


ARITHMETIC: dict[str, Callable[..., Any]] = {
    **{f"operator.{f.__name__}": f for f in (
        operator.add, operator.sub, operator.mul, operator.floordiv, operator.truediv, operator.mod,
        operator.neg, operator.getitem,
    )},
    **{f"torch.{f.__name__}": f for f in (torch.sym_max, torch.sym_min, torch.sym_int, torch.sym_float)},
    **{f"math.{f.__name__}": f for f in (math.floor, math.ceil, math.trunc)},
    "math.pow": power,
    "math.sqrt": torch.sym_sqrt,
}  # fmt: skip
"""Name → what computes sizes, and takes one of several results."""

SIZES = {"sym_numel", "sym_size"}

_NAMES = {function: name for name, function in ARITHMETIC.items()}


def name_of(target: Any) -> str | None:
    """What an operation is called in a file.

    Args:
        target: of a node of a graph.

    Returns:
        Such as ``'aten::add.Tensor'`` or ``'operator.mul'``; None for an operation that is not on the list.
        Memory that is not filled yet is told as zeros.

    Example:
        >>> name_of(torch.ops.aten.add.Tensor), name_of(torch.ops.aten.from_file.default), name_of(print)
        ('aten::add.Tensor', None, None)
    """
    if isinstance(target, OpOverload):
        space, _, kind = target._schema.name.partition("::")
        name = f"{target._schema.name}.{target._overloadname}"
        if target._schema.name in OWN:
            return name if _computes(target) else None
        return FILLED.get(name, name if space == "aten" and _fits(kind, target) else None)
    return _NAMES.get(target)


def operator_of(name: Any) -> Callable[..., Any]:
    """The operation of a name that a file gives.

    Args:
        name: as `name_of` gives it.

    Returns:
        The operation.

    Raises:
        ValueError: it is not on the list, or this version of PyTorch does not have it.
    """
    if isinstance(name, str) and name in ARITHMETIC:
        return ARITHMETIC[name]
    if isinstance(name, str) and name.rpartition(".")[0] in OWN:
        return _own(name)
    kind, _, overload = str(name).removeprefix("aten::").partition(".")
    if name != f"aten::{kind}.{overload}" or not _listed(kind):
        raise ValueError(
            f"{name!r} is no operation that a network read from a file may run; if it is one of your own, "
            "import the module that gives it a rule (bayesprune.structure.rule) before you load"
        )
    packet = getattr(torch.ops.aten, kind, None)
    if packet is None or overload not in packet.overloads():
        raise ValueError(f"PyTorch {torch.__version__} has no operation {name!r}")
    operation: OpOverload = getattr(packet, overload)
    if not _fits(kind, operation):
        raise ValueError(f"{name!r} computes no tensor, or writes into a given one")
    return operation


def _own(name: str) -> OpOverload:
    """An operation outside of PyTorch that this program has a rule for."""
    qualified, _, overload = name.rpartition(".")
    space, _, kind = qualified.partition("::")
    packet = getattr(getattr(torch.ops, space), kind, None)
    if packet is None or overload not in packet.overloads():
        raise ValueError(f"there is no operation {name!r}: import the module that makes it before you load")
    operation: OpOverload = getattr(packet, overload)
    if not _computes(operation):
        raise ValueError(f"{name!r} computes no tensor, or writes into a given one")
    return operation


def _computes(operation: OpOverload) -> bool:
    """Whether an operation gives tensors, and changes nothing."""
    schema = operation._schema
    returns = {str(value.type) for value in schema.returns}
    return bool(returns) and returns <= {"Tensor", "List[Tensor]"} and not schema.is_mutable


def _listed(kind: str) -> bool:
    return (kind if kind.endswith("__") else kind.removesuffix("_")) in ATEN


def _fits(kind: str, operation: OpOverload) -> bool:
    """A form of a listed operation that returns tensors, or sizes, and leaves no other result elsewhere."""
    schema = operation._schema
    returns = {str(value.type) for value in schema.returns}
    gives = returns <= {"Tensor", "List[Tensor]"} if kind not in SIZES else returns == {"int"}
    return _listed(kind) and gives and bool(returns) and not any(a.is_out for a in schema.arguments)
