"""The exact binomial tail: for losses of 0 and 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import bdtr

from bayesprune.certify.pvalues.protocol import Array


@dataclass(frozen=True)
class Binomial:
    r"""The probability of so few errors or fewer if the risk were alpha.

    .. math:: p = P\big( \mathrm{Bin}(n, \alpha) \le k \big), \quad k = \sum_i L_i

    For 0/1 losses k is binomial with the true risk R, and :math:`R \ge \alpha` makes it stochastically
    larger: p is valid, and no valid p-value that is a function of k rises more slowly with it.

    Source:
        The p-value behind the interval of C. J. Clopper & E. S. Pearson (1934), Biometrika 26.

    Example:
        >>> round(float(Binomial()(np.zeros(149), alpha=0.02)), 4)  # 0.98 ** 149
        0.0493
    """

    name = "binomial"
    zero_one = True

    def __call__(self, losses: Array, alpha: float) -> Array:
        """The p-value.

        Args:
            losses: (..., rows), zeros and ones.
            alpha: the level, in (0, 1).

        Returns:
            (...,).
        """
        return np.asarray(bdtr(np.rint(losses.sum(-1)), losses.shape[-1], alpha))

    def to_json(self) -> dict[str, Any]:
        """Its name: there is nothing to set."""
        return {"name": self.name}
