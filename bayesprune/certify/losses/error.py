"""The labelled 0/1 error."""

from __future__ import annotations

from torch import Tensor

from bayesprune.certify.losses.classes import classes_of, no_classes
from bayesprune.certify.losses.protocol import Loss


class Error(Loss):
    r"""1 where the predicted class is wrong: :math:`L = 1[\hat y(x) \ne y]`. Needs labels.

    Example:
        >>> import torch
        >>> outputs = torch.tensor([[3.0, 0.0], [3.0, 0.0]])
        >>> Error().values(outputs, outputs, torch.tensor([0, 1])).tolist()
        [0.0, 1.0]
    """

    name = "error"

    def values(self, outputs: Tensor, reference: Tensor, targets: Tensor | None) -> Tensor:
        """(rows,), 1 where the class is wrong."""
        assert targets is not None  # certify() has checked that labels are there
        return (classes_of(outputs) != targets).float()

    def promise(self, level: str) -> str:
        """Of whom a network with this certificate may be wrong about."""
        return f"predicts a wrong class for at most {level} of new rows"

    def problems(self, reference: Tensor, targets: Tensor | None) -> list[str]:
        """Labels that are none of the network's classes."""
        return no_classes(reference, targets)
