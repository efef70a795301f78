"""Where a network's outputs can lie, whatever its weights: probabilities where log-odds are meant show
there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

DRAWS = 4
ROWS = 64


@dataclass(frozen=True)
class OutputRange:
    """What holds of all outputs that were seen.

    Attributes:
        low: the least.
        high: the largest.
        sums_to_one: those of a row add up to one.
    """

    low: float
    high: float
    sums_to_one: bool

    @property
    def within_unit(self) -> bool:
        """Whether all lie in [0, 1]."""
        return self.low >= 0 and self.high <= 1


def output_range(network: nn.Module, run: Callable[[nn.Module], Tensor]) -> OutputRange:
    """The range of a network's outputs, under its own weights, and under random ones where it has one sign.

    A linear last layer gives both signs under random weights and biases; behind a sigmoid, a softmax or a
    ReLU outputs keep theirs.

    Args:
        network: its parameters are put back.
        run: gives its outputs (rows, ...) for some rows, in evaluation.
    """
    found = range_of(run(network))
    parameters = [p for p in network.parameters() if p.is_floating_point()]
    before = [p.detach().clone() for p in parameters]
    generator = torch.Generator().manual_seed(0)
    try:
        for _ in range(DRAWS):
            if found.low < 0 < found.high:
                break
            for parameter, value in zip(parameters, before, strict=True):
                noise = torch.randn(value.shape, generator=generator).to(value)
                parameter.data = value + noise * max(1.0, float(value.abs().mean()))
            other = range_of(run(network))
            sums = found.sums_to_one and other.sums_to_one
            found = OutputRange(min(found.low, other.low), max(found.high, other.high), sums)
    finally:
        for parameter, value in zip(parameters, before, strict=True):
            parameter.data = value
    return found


def range_of(outputs: Tensor) -> OutputRange:
    """The range of outputs (rows, ...) as they are; what is not finite is left out."""
    seen = outputs[outputs.isfinite()]
    if not seen.numel():
        return OutputRange(-torch.inf, torch.inf, False)
    sums = outputs.sum(-1) if outputs.ndim > 1 and outputs.shape[-1] > 1 else outputs.new_zeros(1)
    return OutputRange(float(seen.min()), float(seen.max()), bool(((sums - 1).abs() < 1e-3).all()))
