"""Testing by betting: for any losses in [0, 1], tight where they vary little."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesprune.certify.pvalues.protocol import Array

LARGEST_STAKE = 0.75


@dataclass(frozen=True)
class Betting:
    r"""The capital of a gambler who bets, row by row, that the mean loss is below alpha.

    .. math:: K_t = \prod_{i \le t} \big(1 - \nu_i (L_i - \alpha)\big), \quad p = 1 / \max_t K_t \wedge 1,
              \quad \nu_i = \min\Big( \tfrac{3/4}{1 - \alpha},\,
              \sqrt{\tfrac{2 \log (1/\delta)}{n \hat\sigma^2_{i-1}}} \Big)

    with running moments :math:`\hat\mu_i = (\tfrac12 + \sum_{j \le i} L_j) / (1 + i)` and
    :math:`\hat\sigma^2_i = (\tfrac14 + \sum_{j \le i} (L_j - \hat\mu_j)^2) / (1 + i)`. The stake of row i
    rests on the rows before it, and a loss of 1 leaves a quarter at least: if the mean is alpha or more, K
    is a non-negative supermartingale that starts at 1, and Ville's inequality gives P(max K ≥ 1/u) ≤ u.

    The value depends on the rows' order. They are shuffled by a seed that is fixed beforehand, so that data
    that lie sorted do no harm.

    Args:
        delta: the error rate for which the stakes are tuned; p is valid whatever it is.
        seed: of the shuffling.

    Source:
        I. Waudby-Smith & A. Ramdas (2024), JRSS B 86, arXiv 2010.09686: the predictable plug-in bets;
        one-sided as in Bates et al., arXiv 2101.02703. The largest stake is theirs, c = 3/4.

    Example:
        >>> from bayesprune.certify.pvalues import HoeffdingBentkus
        >>> low = np.random.default_rng(0).uniform(0.0, 0.1, size=200)
        >>> bool(Betting()(low, alpha=0.08) < 0.05 < HoeffdingBentkus()(low, alpha=0.08))
        True
    """

    delta: float = 0.05
    seed: int = 0

    name = "betting"
    zero_one = False

    def __call__(self, losses: Array, alpha: float) -> Array:
        """The p-value.

        Args:
            losses: (..., rows), in [0, 1].
            alpha: the level, in (0, 1).

        Returns:
            (...,).
        """
        rows = losses.shape[-1]
        if rows == 0:
            return np.ones(losses.shape[:-1])
        order = np.random.default_rng(self.seed).permutation(rows)
        losses = losses[..., order]
        stakes = self._stakes(losses, alpha)
        log_capital = np.cumsum(np.log1p(-stakes * (losses - alpha)), -1).max(-1)  # nats
        return np.asarray(np.exp(-np.maximum(0.0, log_capital)))

    def _stakes(self, losses: Array, alpha: float) -> Array:
        """(..., rows), ν of each row, from the rows before it."""
        rows = losses.shape[-1]
        seen = np.arange(2, rows + 2)
        mean = (0.5 + np.cumsum(losses, -1)) / seen
        variance = (0.25 + np.cumsum((losses - mean) ** 2, -1)) / seen
        before = np.concatenate([np.full((*losses.shape[:-1], 1), 0.25), variance[..., :-1]], -1)
        stakes = np.sqrt(2 * math.log(1 / self.delta) / (rows * before))
        return np.asarray(np.minimum(LARGEST_STAKE / (1 - alpha), stakes))

    def to_json(self) -> dict[str, Any]:
        """Name and settings."""
        return {"name": self.name, "delta": self.delta, "seed": self.seed}
