"""A loss where the network is confident, and nowhere else."""

from __future__ import annotations

from typing import Any

from scipy.special import bdtrc
from torch import Tensor

from bayesprune.certify.losses.classes import confidence_of, no_classes
from bayesprune.certify.losses.error import Error
from bayesprune.certify.losses.protocol import Loss, OnSomeRows, Scores
from bayesprune.certify.pvalues import PValue
from bayesprune.errors import CertificateError


class Selective(OnSomeRows):
    r"""Another loss on the rows where the network's confidence is at least c.

    Tested is the conditional risk :math:`R_c = E[L \mid \text{confidence} \ge c]`. Given which rows are
    confident, their losses are independent draws of mean R_c, and their number m is fixed: a p-value on
    these m losses, such as :math:`P(\mathrm{Bin}(m, \alpha) \le k)`, is valid given m, hence also without the
    condition.

    A network that is never confident has no risk of this kind; so the coverage is reported. With ``coverage``
    it is guaranteed as well: the p-value is the larger of that of the risk and that of the hypothesis that
    the coverage is below, :math:`P(\mathrm{Bin}(n, \text{coverage}) \ge m)`. To reject both takes no
    correction.

    Args:
        confidence: c, the largest softmax probability from which on a row counts, in [0, 1).
        loss: the loss on these rows; by default the error.
        coverage: share of new rows that shall be confident, in [0, 1); 0 guarantees nothing of it.
        by: whose confidence, the ``"candidate"``'s or the ``"reference"`` network's.

    Raises:
        CertificateError: a number out of range, or neither of the two networks.
    """

    name = "selective"

    def __init__(
        self,
        confidence: float = 0.9,
        loss: Loss | None = None,
        coverage: float = 0.0,
        by: str = "candidate",
    ) -> None:
        self.confidence, self.loss, self.coverage, self.by = confidence, loss or Error(), coverage, by
        wrong = [
            f"{name}={value!r} must be a number from 0 to below 1."
            for name, value in (("confidence", confidence), ("coverage", coverage))
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < 1.0
        ]
        if by not in ("candidate", "reference"):
            wrong.append(f"by={by!r}: whose confidence selects, 'candidate' or 'reference'?")
        if self.loss.name in ("selective", "several", "of-class"):
            wrong.append(f"loss= is {self.loss.name} itself: give the loss that counts on the selected rows.")
        if wrong:
            raise CertificateError("Selective: " + " ".join(wrong))
        self.zero_one, self.labelled = self.loss.zero_one, self.loss.labelled
        self.comparing = self.loss.comparing or by == "reference"

    def counted(self, outputs: Tensor, reference: Tensor, targets: Tensor | None) -> Tensor:
        """(rows,), bool: those on which the network is confident."""
        return confidence_of(outputs if self.by == "candidate" else reference) >= self.confidence

    def p_value(self, scores: Scores, alpha: float, p_value: PValue) -> float:
        """The larger of the p-values of risk and coverage."""
        confident, rows = int(scores.counted.sum()), len(scores.counted)
        risk = super().p_value(scores, alpha, p_value)
        if self.coverage == 0.0:
            return risk
        return max(risk, float(bdtrc(confident - 1, rows, self.coverage)) if confident else 1.0)

    def promise(self, level: str) -> str:
        """What a network with this certificate promises where it is confident."""
        whose = "it" if self.by == "candidate" else "the reference network"
        where = f"of the new rows on which {whose} is confident to at least {self.confidence:g}"
        covered = (
            f"is confident on at least {100 * self.coverage:g} % of new rows, and " if self.coverage else ""
        )
        return f"{covered}{self.loss.promise(level).replace('of new rows', where)}"

    def problems(self, reference: Tensor, targets: Tensor | None) -> list[str]:
        """Outputs that have no confidence, and what the other loss finds."""
        return list(dict.fromkeys([*no_classes(reference), *self.loss.problems(reference, targets)]))

    def to_json(self) -> dict[str, Any]:
        """Name and settings."""
        return {
            "name": self.name,
            "confidence": self.confidence,
            "loss": self.loss.to_json(),
            "coverage": self.coverage,
            "by": self.by,
        }


def coverage_of(scores: Scores) -> float:
    """Share of the rows that count."""
    return scores.coverage
