"""What a network costs: parameters and multiply-accumulates, counted on the network itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bayesprune.rows.example import example_call
from bayesprune.structure.counting import Counter
from bayesprune.structure.running import check_plain, evaluating, run_on


@dataclass(frozen=True)
class Cost:
    """Size of a network.

    Attributes:
        parameters: trainable numbers, biases included.
        macs: multiply-accumulates of products and convolutions for one row.
    """

    parameters: int
    macs: int


def count(network: nn.Module, example: Any) -> Cost:
    """Count a network's parameters, and the multiply-accumulates of one row.

    MACs of a layer = (numbers in its weight) × (output positions per row); attention's products count too,
    and recurrent layers at every step. Activations, pooling and normalisation do not, as is usual. Operations
    of one's own are counted by what they run.

    Args:
        network: any module.
        example: (rows, ...), a batch that it accepts, in any form that ``bp.gate`` takes.

    Returns:
        Its cost.

    Raises:
        UnsupportedNetworkError: no network, or one that does not run on the example.
        DataError: an example that is none.

    Warns:
        CountWarning: it multiplies by weights in a way that is not counted; they are named.

    Example:
        >>> import torch
        >>> count(torch.nn.Conv2d(1, 20, 5), torch.zeros(1, 1, 28, 28))
        Cost(parameters=520, macs=288000)
    """
    check_plain(network, "count")
    inputs = example_call(network, example)
    with evaluating(network), torch.enable_grad(), Counter(network) as counter:
        run_on(network, inputs)
    counter.warn()
    macs = counter.macs // len(inputs)
    return Cost(sum(p.numel() for p in network.parameters()), macs)
