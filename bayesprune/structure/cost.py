"""What a network costs: parameters and multiply-accumulates, counted on the network itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bayesprune.structure.counting import counting
from bayesprune.structure.trace import evaluating


@dataclass(frozen=True)
class Cost:
    """Size of a network.

    Attributes:
        parameters: trainable numbers, biases included.
        macs: multiply-accumulates of products and convolutions for one row.
    """

    parameters: int
    macs: int


def count(network: nn.Module, example: Tensor) -> Cost:
    """Count a network's parameters, and the multiply-accumulates of one row.

    MACs of a layer = (numbers in its weight) × (output positions per row), and attention's products count
    too, as PyTorch's own counter has them; activations, pooling and normalisation do not, as is usual.

    Args:
        network: any module.
        example: (rows, ...), a batch that it accepts.

    Returns:
        Its cost.

    Example:
        >>> import torch
        >>> count(torch.nn.Conv2d(1, 20, 5), torch.zeros(1, 1, 28, 28))
        Cost(parameters=520, macs=288000)
    """
    with evaluating(network), torch.enable_grad(), counting() as counter:
        network(example)
    macs = counter.get_total_flops() // 2 // len(example)
    return Cost(sum(p.numel() for p in network.parameters()), macs)
