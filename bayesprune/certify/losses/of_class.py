"""A loss on the rows of one class, so that no class pays for the others."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bayesprune.certify.losses.classes import no_classes
from bayesprune.certify.losses.error import Error
from bayesprune.certify.losses.protocol import Loss, OnSomeRows
from bayesprune.certify.losses.several import Several
from bayesprune.errors import CertificateError
from bayesprune.ranges import is_whole


class OfClass(OnSomeRows):
    r"""Another loss on the rows whose label is c.

    Tested is the conditional risk :math:`R_c = E[L \mid y = c]`. Given the labels, the losses of the rows of
    class c are independent draws of that mean, so that a p-value on these rows alone is valid given how many
    they are, hence also without the condition.

    Args:
        label: c, counted from 0.
        loss: the loss on these rows; by default the error.

    Raises:
        CertificateError: no whole number of at least 0, or a loss that counts some rows only already.

    Example:
        >>> import torch
        >>> outputs = torch.eye(2)[torch.tensor([0, 1, 1])]
        >>> scores = OfClass(1).scores(outputs, outputs, torch.tensor([0, 0, 1]))
        >>> scores.losses.tolist(), round(scores.coverage, 3)
        ([0.0], 0.333)
    """

    name = "of-class"
    labelled = True

    def __init__(self, label: int, loss: Loss | None = None) -> None:
        self.loss = loss or Error()
        if not is_whole(label) or label < 0:
            raise CertificateError(f"OfClass({label!r}): give a class as a whole number, counted from 0.")
        self.label = int(label)
        if not isinstance(self.loss, Loss) or isinstance(self.loss, OnSomeRows | Several):
            raise CertificateError(
                f"OfClass({label}): loss={getattr(self.loss, 'name', self.loss)!r} counts some rows only, or "
                "is several: give a loss of every row."
            )
        self.zero_one, self.comparing = self.loss.zero_one, self.loss.comparing

    def counted(self, outputs: Tensor, reference: Tensor, targets: Tensor | None) -> Tensor:
        """(rows,), bool: those whose label is c."""
        assert targets is not None  # certify() has checked that labels are there
        return targets == self.label

    def promise(self, level: str) -> str:
        """What a network with this certificate promises of one class."""
        of_class = f" rows of class {self.label}"
        told = self.loss.promise(level)
        return told.replace("new rows", f"new{of_class}").replace("all rows", f"all{of_class}")

    def problems(self, reference: Tensor, targets: Tensor | None) -> list[str]:
        """Labels that are none of the network's classes, a class that no row is of."""
        wrong = [*no_classes(reference, targets), *self.loss.problems(reference, targets)]
        if not wrong and targets is not None and not bool((targets == self.label).any()):
            wrong.append(
                f"of class {self.label} there is no row: give rows of every class that is asked about."
            )
        return list(dict.fromkeys(wrong))

    def to_json(self) -> dict[str, Any]:
        """Name and settings."""
        return {"name": self.name, "label": self.label, "loss": self.loss.to_json()}


def each_class(classes: int, loss: Loss | None = None) -> list[Loss]:
    """A loss for every class, to be given as ``loss=`` with one level for all or one each.

    Args:
        classes: how many there are.
        loss: on the rows of each; by default the error.

    Raises:
        CertificateError: no whole number of at least 1.

    Example:
        >>> [loss.to_json()["label"] for loss in each_class(3)]
        [0, 1, 2]
    """
    if not is_whole(classes) or classes < 1:
        raise CertificateError(f"each_class({classes!r}): give the number of classes, at least 1.")
    return [OfClass(label, loss) for label in range(classes)]
