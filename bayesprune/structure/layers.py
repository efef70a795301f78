"""The layers that a chain may hold, by what they mean for units."""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn

Producer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d

PRODUCERS: frozenset[type[nn.Module]] = frozenset({nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d})
"""Layers that read all units of their input and make new ones."""

NORMS: frozenset[type[nn.Module]] = frozenset({nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d})
"""Layers that treat every unit on its own, with parameters of its own."""

POINTWISE: frozenset[type[nn.Module]] = frozenset(
    {
        nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
        nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Softplus, nn.Softsign,
        nn.LogSigmoid,
        nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
        nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
        nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
        nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    }
)  # fmt: skip
"""Layers that treat every unit on its own, without parameters: activations, pooling, dropout."""

POOLS: dict[type[nn.Module], int] = {
    getattr(nn, f"{kind}Pool{dims}d"): dims
    for kind in ("Max", "Avg", "AdaptiveAvg", "AdaptiveMax")
    for dims in (1, 2, 3)
}
"""Pooling layers and the dimensions they pool over: given one dimension less they would pool across units."""

ACROSS: frozenset[type[nn.Module]] = frozenset({nn.Softmax, nn.LogSoftmax})
"""Layers that read across units: allowed only after the last producer, where nothing is removed."""


class Select(nn.Module):
    """Reads some of the units of its input: ``y = x[:, index]``.

    It stands where the network keeps being handed what it no longer reads: at its inputs, and behind a
    flatten.

    Args:
        width: units of the incoming tensor; to begin with all are read.

    Attributes:
        index: (units read,) positions along dimension 1 of the input, a buffer.

    Example:
        >>> select = Select(4)
        >>> select.index = torch.tensor([0, 2])
        >>> select(torch.tensor([[5.0, 6.0, 7.0, 8.0]]))
        tensor([[5., 7.]])
    """

    index: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("index", torch.arange(width))

    def forward(self, x: Tensor) -> Tensor:
        """Select along dimension 1.

        Args:
            x: (rows, width, ...).

        Returns:
            (rows, units read, ...).
        """
        if (
            len(self.index) == self.width
        ):  # the index is always in ascending order, so all of them means: as it is
            return x
        return x.index_select(1, self.index)

    def extra_repr(self) -> str:
        """Width in and out."""
        return f"{len(self.index)} of {self.width}"


def is_producer(layer: nn.Module) -> TypeGuard[Producer]:
    """Whether a layer is exactly one of ``PRODUCERS``, and no subclass with ways of its own."""
    return type(layer) in PRODUCERS


def resize_(layer: nn.Module) -> None:
    """Make a layer's own size attributes agree with its parameters again."""
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        layer.out_channels, layer.in_channels = layer.weight.shape[:2]
    elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        tensor = layer.weight if layer.affine else layer.running_mean
        if tensor is not None:
            layer.num_features = len(tensor)
