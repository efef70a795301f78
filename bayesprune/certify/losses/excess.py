"""Error beyond the reference network's: the difference itself, or new errors alone."""

from __future__ import annotations

from torch import Tensor

from bayesprune.certify.losses.classes import classes_of, no_classes
from bayesprune.certify.losses.protocol import Loss, Scores


def _wrong(outputs: Tensor, targets: Tensor | None) -> Tensor:
    assert targets is not None  # certify() has checked that labels are there
    return (classes_of(outputs) != targets).float()


class ExcessError(Loss):
    r"""How much more often the candidate is wrong than the reference network; repaired rows count against
    new errors.

    The difference :math:`D = 1[\hat y \ne y] - 1[\hat y_0 \ne y]` is −1, 0 or 1. Tested is its mean, by the
    values :math:`(1 + D)/2 \in \{0, ½, 1\}` at the level :math:`(1 + \alpha)/2`:

    .. math:: E[D] \le \alpha \iff E\big[\tfrac{1+D}2\big] \le \tfrac{1+\alpha}2

    Bounds that see the mean alone take these for losses around ½ of the largest variance; betting sees that
    nearly all are ½ exactly, and is the default here.
    """

    name = "excess"
    zero_one = False
    comparing = True

    def values(self, outputs: Tensor, reference: Tensor, targets: Tensor | None) -> Tensor:
        """(rows,), 0 where a row is repaired, ½ where nothing changes, 1 where an error is new."""
        return (1 + _wrong(outputs, targets) - _wrong(reference, targets)) / 2

    def level(self, alpha: float) -> float:
        """(1 + alpha) / 2."""
        return (1 + alpha) / 2

    def risk(self, scores: Scores) -> float:
        """The mean difference, in [−1, 1]."""
        return 2 * super().risk(scores) - 1

    def promise(self, level: str) -> str:
        """How much more often a network with this certificate may be wrong."""
        return (
            "predicts a wrong class for a share of new rows that exceeds the reference network's by at most "
            f"{level} of all rows"
        )

    def problems(self, reference: Tensor, targets: Tensor | None) -> list[str]:
        """Labels that are none of the network's classes."""
        return no_classes(reference, targets)


class NewErrors(Loss):
    r"""1 where the candidate is wrong and the reference network is right: the positive part of the
    difference.

    Rows that pruning repaired do not make up for those that it broke, so that
    :math:`E[D] \le E[D^+] \le \alpha`: it promises more than ``ExcessError``, and being 0 or 1 has the exact
    binomial p-value.
    """

    name = "new-errors"
    comparing = True

    def values(self, outputs: Tensor, reference: Tensor, targets: Tensor | None) -> Tensor:
        """(rows,), 1 where an error is new."""
        return (_wrong(outputs, targets) - _wrong(reference, targets)).clamp_min(0)

    def promise(self, level: str) -> str:
        """How often a network with this certificate may break what was right."""
        return (
            "predicts a wrong class where the reference network predicts the right one for at most "
            f"{level} of new rows"
        )

    def problems(self, reference: Tensor, targets: Tensor | None) -> list[str]:
        """Labels that are none of the network's classes."""
        return no_classes(reference, targets)
