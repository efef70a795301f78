"""The Hoeffding–Bentkus p-value: for any losses in [0, 1], from their mean alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import bdtr, xlogy

from bayesprune.certify.pvalues.protocol import Array


@dataclass(frozen=True)
class HoeffdingBentkus:
    r"""The smaller of two tail bounds on a mean of n losses in [0, 1].

    .. math:: p = \min\Big( e^{-n\,h_1(\hat R \wedge \alpha,\, \alpha)},\;
              e \cdot P\big(\mathrm{Bin}(n, \alpha) \le \lceil n \hat R \rceil\big) \Big), \quad
              h_1(a, b) = a \log\tfrac ab + (1-a)\log\tfrac{1-a}{1-b}

    Both bound :math:`P(\hat R \le r)` by a function that does not fall with r, so that the smaller one does
    too: it is valid without a correction.

    Source:
        W. Hoeffding (1963), JASA 58; V. Bentkus (2004), Annals of Probability 32; put together by S. Bates,
        A. Angelopoulos, L. Lei, J. Malik & M. Jordan (2021), arXiv 2101.02703.

    Example:
        >>> p = HoeffdingBentkus()
        >>> bool(np.isclose(p(np.zeros(149), alpha=0.02), 0.98**149))
        True
        >>> float(p(np.full(10, 0.5), alpha=0.2))
        1.0
    """

    name = "hoeffding-bentkus"
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
        total = losses.sum(-1)
        mean = np.minimum(total / rows, alpha)
        distance = xlogy(mean, mean / alpha) + xlogy(1 - mean, (1 - mean) / (1 - alpha))  # nats
        bentkus = np.e * bdtr(np.ceil(total), rows, alpha)
        return np.asarray(np.minimum(1.0, np.minimum(np.exp(-rows * distance), bentkus)))

    def to_json(self) -> dict[str, Any]:
        """Its name: there is nothing to set."""
        return {"name": self.name}
