"""Outputs of a classifier read: which class, how sure; and what is wrong with outputs that are none."""

from __future__ import annotations

import torch
from torch import Tensor


def classes_of(outputs: Tensor) -> Tensor:
    """The class that is predicted.

    Args:
        outputs: (rows, classes), logits; or (rows,) or (rows, 1), the log-odds of class 1 against class 0.

    Returns:
        (rows,), int64.

    Example:
        >>> classes_of(torch.tensor([[0.1, 2.0], [1.0, 0.0]])).tolist()
        [1, 0]
    """
    if _is_binary(outputs):
        return (outputs.reshape(len(outputs)) > 0).long()
    return outputs.argmax(-1)


def confidence_of(outputs: Tensor) -> Tensor:
    """The probability of the predicted class, as the network has it.

    Args:
        outputs: (rows, classes), logits; or (rows,) or (rows, 1), log-odds.

    Returns:
        (rows,), in (0, 1].
    """
    if _is_binary(outputs):
        return torch.sigmoid(outputs.reshape(len(outputs)).abs())
    return outputs.softmax(-1).amax(-1)


def no_classes(outputs: Tensor, targets: Tensor | None = None) -> list[str]:
    """Every reason why outputs, and targets where they are given, are not those of a classifier."""
    wrong = []
    classes = 2 if _is_binary(outputs) else outputs.shape[-1]
    if outputs.ndim > 2:
        wrong.append(
            f"the outputs are of shape {tuple(outputs.shape)}, not (rows, classes): score them by a loss of "
            "your own, OwnLoss(function, …)."
        )
    if targets is None or outputs.ndim > 2:
        return wrong
    whole = not targets.is_floating_point() or bool((targets == targets.round()).all())
    if targets.ndim != 1 or not whole:
        wrong.append(
            f"the labels are {targets.dtype} of shape {tuple(targets.shape)}, not (rows,) whole numbers: of "
            "real targets make a loss of your own, OwnLoss(function, …)."
        )
    elif len(targets) and (int(targets.min()) < 0 or int(targets.max()) >= classes):
        wrong.append(
            f"the labels run from {int(targets.min())} to {int(targets.max())}, and the network has "
            f"{classes} classes: count them from 0."
        )
    return wrong


def _is_binary(outputs: Tensor) -> bool:
    return outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] == 1)
