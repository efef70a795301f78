"""A linear map that each row has its own weight for, out of a few: what mixtures of experts are made of.

A loop over experts, each of which is given the rows that chose it, does other operations for other rows; no
graph can have it. As one operation it is a linear map along the last dimension, and rows stay where they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, library
from torch._subclasses.fake_tensor import is_fake

from bayesprune.structure.plain.operators import allow

NAME = "bayesprune::routed_linear"
_LIBRARY = library.Library("bayesprune", "DEF")
_LIBRARY.define("routed_linear(Tensor input, Tensor weight, Tensor? bias, Tensor index) -> Tensor")
allow(NAME)


def routed_linear(input: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor) -> Tensor:
    """y_n = W_e x_n + b_e with e = index_n, for networks that can be pruned and saved.

    Each weight multiplies the rows that chose it, and none twice.

    Args:
        input: (rows, inputs).
        weight: (experts, outputs, inputs).
        bias: (experts, outputs), or None.
        index: (rows,), which weight each row is multiplied by.

    Returns:
        (rows, outputs).

    Example:
        >>> weight = torch.stack([torch.eye(2), 10 * torch.eye(2)])
        >>> routed_linear(torch.ones(3, 2), weight, None, torch.tensor([1, 0, 1]))
        tensor([[10., 10.],
                [ 1.,  1.],
                [10., 10.]])
    """
    return torch.ops.bayesprune.routed_linear(input, weight, bias, index)  # type: ignore[no-any-return]


def _routed(input: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor) -> Tensor:
    """The operation, of others that have gradients; where no numbers are known, of others that need none."""
    if is_fake(index) or index.is_meta:  # how many rows chose which is not known
        y = torch.bmm(weight[index], input.unsqueeze(-1)).squeeze(-1)
    else:
        order = index.argsort(stable=True)
        with torch._C.DisableTorchFunction():
            counts = torch.bincount(index, minlength=len(weight)).tolist()
        parts = input.index_select(0, order).split(counts)
        y = torch.cat([F.linear(part, w) for part, w in zip(parts, weight.unbind(), strict=True)])
        y = y.index_select(0, order.argsort())
    return y if bias is None else y + bias[index]


_LIBRARY.impl("routed_linear", _routed, "CompositeImplicitAutograd")
OPERATION = torch.ops.bayesprune.routed_linear.default
