"""Disagreement with the reference network: needs no labels."""

from __future__ import annotations

from torch import Tensor

from bayesprune.certify.losses.classes import classes_of, no_classes
from bayesprune.certify.losses.protocol import Loss


class Disagreement(Loss):
    r"""1 where another class is predicted than by the reference network: :math:`1[\hat y(x) \ne \hat
    y_0(x)]`.

    Unlabelled rows from the network's daily work are enough. Since
    :math:`R_{\text{error}} \le R_{\text{error of the reference}} + R_{\text{disagreement}}`, it bounds the
    damage to the error too.
    """

    name = "disagreement"
    labelled = False
    comparing = True

    def values(self, outputs: Tensor, reference: Tensor, targets: Tensor | None) -> Tensor:
        """(rows,), 1 where the two differ."""
        return (classes_of(outputs) != classes_of(reference)).float()

    def promise(self, level: str) -> str:
        """How often a network with this certificate may differ."""
        return f"predicts another class than the reference network for at most {level} of new rows"

    def problems(self, reference: Tensor, targets: Tensor | None) -> list[str]:
        """Outputs that are no classifier's."""
        return no_classes(reference)
