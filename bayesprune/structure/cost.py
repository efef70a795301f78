"""What a network costs: parameters and multiply-accumulates, counted on the network itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bayesprune.structure.plain import PlainGraph, graph_macs
from bayesprune.structure.trace import evaluating


@dataclass(frozen=True)
class Cost:
    """Size of a network.

    Attributes:
        parameters: trainable numbers, biases included.
        macs: multiply-accumulates of Linear and Conv layers for one row.
    """

    parameters: int
    macs: int


def count(network: nn.Module, example: Tensor) -> Cost:
    """Count a network's parameters, and the multiply-accumulates of one row.

    MACs of a layer = (numbers in its weight) × (output positions per row); activations, pooling and
    normalisation are not counted, as is usual.

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
    parameters = sum(p.numel() for p in network.parameters())
    if isinstance(network, PlainGraph):  # its layers are not called
        return Cost(parameters, graph_macs(network, example))
    macs = 0

    def add(layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        nonlocal macs
        weight: Tensor = layer.weight  # type: ignore[assignment]
        macs += math.prod(weight.shape) * (output.numel() // len(output) // weight.shape[0])

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    hooks = [layer.register_forward_hook(add) for layer in network.modules() if isinstance(layer, kinds)]
    try:
        with evaluating(network):
            network(example)
    finally:
        for hook in hooks:
            hook.remove()
    return Cost(parameters, macs)
