r"""Whether weights get a posterior beside a noise that is learnt, so that less of it is taken for signal.

Where p weights are fitted to N rows as points, and the noise is learnt beside them, residuals of a linear
model have the variance :math:`\sigma^2 (1 - p/N)`, and what comes differs from its prediction by
:math:`\sigma^2 (1 + p/N)` on average. An interval that is to hold the share L holds

.. math:: 2\,\Phi\!\left(\Phi^{-1}\!\left(\tfrac{1 + L}{2}\right)
          \sqrt{\tfrac{1 - p/N}{1 + p/N}}\right) - 1,

of 90 % that is 86 at N = 10 p, 82 at 5 p and 72 at 2.5 p. A likelihood without a noise to learn (classes,
counts, a known scale) takes nothing from the residuals, and is left as it is.
"""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

from bayesprune.gated import GatedModel
from bayesprune.svi.settings import Recipe

ROWS_A_WEIGHT = 10
"""From here on points cover 86 % of what comes, or more, where they say 90."""


def covered_by_points(rows_a_weight: float, level: float = 0.9) -> float:
    """What share of new targets an interval holds whose noise was learnt beside weights as points.

    Args:
        rows_a_weight: N / p, above 1.
        level: that it is to hold.

    Example:
        >>> [round(covered_by_points(rows), 2) for rows in (2.5, 5, 10, 50)]
        [0.72, 0.82, 0.86, 0.89]
    """
    normal, shorter = NormalDist(), sqrt((rows_a_weight - 1) / (rows_a_weight + 1))
    return 2 * normal.cdf(normal.inv_cdf((1 + level) / 2) * shorter) - 1


def spreads(recipe: Recipe, gated: GatedModel) -> bool:
    """Whether weights get a posterior in the compact part.

    Args:
        recipe: which may say so.
        gated: the model, at the decision: what is left of it is counted.
    """
    if recipe.compact_weights is not None:
        return recipe.compact_weights == "normal"
    few = gated.likelihood.rows < ROWS_A_WEIGHT * gated.network.parameter_count()
    return few and bool(gated.likelihood.plain.followed())
