"""Several risks at once, each below a level of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from bayesprune.certify.losses.protocol import Loss, Scores
from bayesprune.certify.pvalues import PValue
from bayesprune.errors import CertificateError


@dataclass(frozen=True)
class SeveralScores(Scores):
    """The losses of one network, of several kinds.

    Attributes:
        values: (rows,), the largest of each row.
        counted: (rows,), bool: the rows that any of the risks is about.
        parts: losses of each kind.
    """

    parts: tuple[Scores, ...] = ()

    def on(self, rows: npt.NDArray[np.int64]) -> SeveralScores:
        """Those of some rows."""
        return several_scores([part.on(rows) for part in self.parts])

    @property
    def coverage(self) -> float:
        """The smallest of the shares of rows that count."""
        return min(part.coverage for part in self.parts)


class Several(Loss):
    r"""Risks :math:`R_k \le \alpha_k` for every k, in one certificate.

    A candidate passes where all the hypotheses :math:`H_k\colon R_k > \alpha_k` are rejected, each at the
    full level: its p-value is the largest of theirs.

    .. math:: p = \max_k p_k, \qquad
              P(p \le u) = P\Big(\bigcap_k \{p_k \le u\}\Big) \le P(p_j \le u) \le u

    for any j whose hypothesis is true. Wrong is a candidate if *one* of its risks is too high, and to be
    certified it must have rejected just that one: nothing is paid for the number of risks, however they hang
    together (the intersection–union test). Across candidates the rule pays, as ever.

    Args:
        risks: pairs of a loss and its level, in (0, 1).

    Raises:
        CertificateError: none, one that is itself several, two of the same, or a level out of range.

    Source:
        R. L. Berger (1982), Multiparameter hypothesis testing and acceptance sampling, Technometrics 24; for
        certificates of several risks A. Angelopoulos et al. (2021), Learn then Test, arXiv 2110.01052.

    Example:
        >>> import torch
        >>> from bayesprune.certify.losses import Disagreement, Error
        >>> from bayesprune.certify.pvalues import Binomial
        >>> both = Several([(Error(), 0.1), (Disagreement(), 0.05)])
        >>> right = torch.eye(2)[torch.zeros(60, dtype=torch.int64)]
        >>> scores = both.scores(right, right, torch.zeros(60))
        >>> round(both.p_value(scores, both.alpha, Binomial()), 4)  # 0.95 ** 60 > 0.9 ** 60
        0.0461
    """

    name = "several"

    def __init__(self, risks: Sequence[tuple[Loss, float]]) -> None:
        _check(risks)
        self.risks = tuple((loss, float(alpha)) for loss, alpha in risks)
        self.alpha = max(alpha for _, alpha in self.risks)
        losses = [loss for loss, _ in self.risks]
        self.zero_one = all(loss.zero_one for loss in losses)
        self.labelled = any(loss.labelled for loss in losses)
        self.comparing = any(loss.comparing for loss in losses)

    def scores(self, outputs: Tensor, reference: Tensor, targets: Tensor | None) -> SeveralScores:
        """The losses of each row, of every kind."""
        return several_scores([loss.scores(outputs, reference, targets) for loss, _ in self.risks])

    def values(self, outputs: Tensor, reference: Tensor, targets: Tensor | None) -> Tensor:
        """(rows,), the largest loss of each row."""
        parts = [loss.values(outputs, reference, targets) for loss, _ in self.risks]
        largest = parts[0]
        for part in parts[1:]:
            largest = largest.maximum(part)
        return largest

    def levels(self, alpha: float) -> list[float]:
        """The levels of all risks, the largest being alpha: raised or lowered in one proportion."""
        return [own * (alpha / self.alpha) for _, own in self.risks]

    def risk(self, scores: Scores) -> float:
        """The risk that is nearest to its level or furthest above, in proportion to the largest level.

        It is at most alpha where every risk is at most its own; NaN where one of them is of no row.
        """
        shares = [risk / own for risk, (_, own) in zip(self.each(scores), self.risks, strict=True)]
        return float(np.clip(np.max(shares) * self.alpha, -1.0, 1.0))

    def each(self, scores: Scores) -> list[float]:
        """The risks, in order; NaN where one is of no row."""
        return [loss.risk(part) for (loss, _), part in zip(self.risks, _parts(scores), strict=True)]

    def p_values(self, scores: Scores, alpha: float, p_value: PValue) -> list[float]:
        """The p-value of each risk, at its level."""
        found = zip(self.risks, _parts(scores), self.levels(alpha), strict=True)
        return [loss.p_value(part, level, p_value) for (loss, _), part, level in found]

    def p_value(self, scores: Scores, alpha: float, p_value: PValue) -> float:
        """The largest of them."""
        return max(self.p_values(scores, alpha, p_value))

    def details(self, scores: Scores, alpha: float, p_value: PValue) -> dict[str, Any]:
        """``risks`` and ``p_values``, in order."""
        risks = [risk if np.isfinite(risk) else None for risk in self.each(scores)]
        return {"risks": risks, "p_values": self.p_values(scores, alpha, p_value)}

    def least_rows(self, p_value: PValue, alpha: float, delta: float) -> int | None:
        """As many as the risk needs that needs most."""
        found = [
            loss.least_rows(p_value, level, delta)
            for (loss, _), level in zip(self.risks, self.levels(alpha), strict=True)
        ]
        known = [rows for rows in found if rows is not None]
        return max(known) if len(known) == len(found) else None

    def promise(self, level: str) -> str:
        """All promises, each with its own level; ``level`` is the largest of them."""
        told = [loss.promise(f"{100 * alpha:.6g} %") for loss, alpha in self.risks]
        return ", and ".join(told)

    def problems(self, reference: Tensor, targets: Tensor | None) -> list[str]:
        """What any of the losses finds."""
        found = [
            problem
            for loss, _ in self.risks
            for problem in loss.problems(reference, targets if loss.labelled else None)
        ]
        return list(dict.fromkeys(found))

    def to_json(self) -> dict[str, Any]:
        """The losses with their levels."""
        return {
            "name": self.name,
            "risks": [{"loss": loss.to_json(), "alpha": alpha} for loss, alpha in self.risks],
        }


def several_scores(parts: Sequence[Scores]) -> SeveralScores:
    """Losses of several kinds, put together.

    Args:
        parts: at least one, of the same rows.
    """
    values = np.max([part.values for part in parts], 0)
    counted = np.any([part.counted for part in parts], 0)
    return SeveralScores(values, counted, tuple(parts))


def _parts(scores: Scores) -> tuple[Scores, ...]:
    assert isinstance(scores, SeveralScores)  # made by Several.scores
    return scores.parts


def _check(risks: Any) -> None:
    pairs = list(risks) if isinstance(risks, list | tuple) else []
    if not pairs or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise CertificateError(
            f"Several({risks!r:.80}): give pairs of a loss and its level, as [(Error(), 0.05), "
            "(Disagreement(), 0.02)]."
        )
    wrong = []
    for number, (loss, alpha) in enumerate(pairs):
        if not isinstance(loss, Loss) or isinstance(loss, Several):
            wrong.append(f"risk {number} is {loss!r:.40}, not a loss of bayesprune.certify.losses.")
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0.0 < alpha < 1.0:
            wrong.append(f"the level of risk {number} is {alpha!r}, and must lie between 0 and 1, as 0.02.")
    told = [repr(loss.to_json()) for loss, _ in pairs if isinstance(loss, Loss)]
    wrong += [
        f"risk {number} is asked for twice: keep the lower of its levels."
        for number, text in enumerate(told)
        if text in told[:number]
    ]
    if wrong:
        raise CertificateError("Several: " + " ".join(wrong))
