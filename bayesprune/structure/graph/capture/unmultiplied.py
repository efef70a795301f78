"""Runs of which only the sizes matter: products of large tensors are not computed, and are zeros."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

aten = torch.ops.aten

LARGE = 2**27
"""Numbers of the first operand times those of the second, from which a product is not computed."""

PRODUCTS = {
    aten.linear.default, aten.matmul.default, aten.mm.default, aten.bmm.default, aten.addmm.default,
    aten.baddbmm.default, aten.conv1d.default, aten.conv1d.padding, aten.conv2d.default, aten.conv2d.padding,
    aten.conv3d.default, aten.conv3d.padding, aten.convolution.default,
    aten.scaled_dot_product_attention.default,
}  # fmt: skip
"""Operations whose results' sizes hang on sizes alone, and which take nearly all of a network's time."""


class Products:
    """How large products are run.

    Args:
        computed: whether they are; zeros of their sizes stand for them where they are not.
    """

    def __init__(self, computed: bool) -> None:
        self.computed, self.left_out = computed, 0

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation."""
        if self.computed or not is_large(func, args):
            return func(*args, **kwargs)
        self.left_out += 1
        return zeros_of(func, args, kwargs)


def is_large(func: Any, args: Any) -> bool:
    """Whether an operation is a product that takes much longer than its sizes."""
    if func not in PRODUCTS:
        return False
    first, second = args[:2]
    return bool(first.numel() * second.numel() >= LARGE and first.is_floating_point())


def zeros_of(func: Any, args: Any, kwargs: Any) -> Tensor:
    """What a product returns, with zeros for numbers.

    Args:
        func: the operation.
        args: its arguments by position.
        kwargs: and by name.

    Returns:
        Of the shape, the strides and the type of the product, on its device.

    Raises:
        RuntimeError: the operands do not fit, as the product says it.
    """
    first, second = args[:2]
    if func is aten.linear.default and first.shape[-1:] == second.shape[1:]:
        zeros: Tensor = first.new_zeros((*first.shape[:-1], len(second)))
        return zeros
    result: Tensor = func(*tree_map(_without_numbers, args), **tree_map(_without_numbers, kwargs))
    return torch.empty_strided(
        result.shape, result.stride(), dtype=result.dtype, device=args[0].device
    ).zero_()


def _without_numbers(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
