r"""Whether weights get a posterior beside a noise that is learnt, so that less of it is taken for signal.

Where p weights are fitted to N rows as points, and the noise is learnt beside them, residuals of a linear
model have the variance :math:`\sigma^2 (1 - p/N)`, and what comes differs from its prediction by
:math:`\sigma^2 (1 + p/N)` on average. An interval that is to hold the share L holds

.. math:: 2\,\Phi\!\left(\Phi^{-1}\!\left(\tfrac{1 + L}{2}\right)
          \sqrt{\tfrac{1 - p/N}{1 + p/N}}\right) - 1,

of 90 % that is 86 at N = 10 p, 82 at 5 p and 72 at 2.5 p. A likelihood without a noise to learn (classes,
counts, a known scale) takes nothing from the residuals, and is left as it is.

- *Fewer rows than weights.* Points can explain every row: nothing is left by which a noise could be told, it
  collapses while gates are still judged, and units stay that only fit noise. Weights have a posterior from
  the first step then, and the noise is that of residuals under drawn weights, the maximiser of the ELBO.
- *Fewer than ten rows a weight that is left at the decision.* Selection sees a noise that is short by the
  factor above; the small network's weights get a posterior, and with it the noise is learnt anew.

``python benchmarks/coverage.py`` says what intervals hold.
"""

from __future__ import annotations

from math import exp, sqrt
from statistics import NormalDist

from bayesprune.gated import GatedModel
from bayesprune.svi.schedule import Schedule
from bayesprune.svi.settings import Recipe

ROWS_A_WEIGHT = 10
"""From here on points cover 86 % of what comes, or more, where they say 90."""
ROWS_FROM_THE_START = 1
"""Rows a weight of the dense network, below which points could explain every row."""
WIDEST = 0.1
"""Of the prior's standard deviation, that a posterior starts with: fresh weights are not much larger."""


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


def spreads_at_once(recipe: Recipe, gated: GatedModel) -> bool:
    """Whether weights get a posterior before the first step, unasked.

    Args:
        recipe: which may say what weights are.
        gated: the model before training: its weights are counted.
    """
    return recipe.compact_weights != "points" and _few(gated, ROWS_FROM_THE_START)


def first_scale(gated: GatedModel, schedule: Schedule) -> float:
    r"""Standard deviation that a posterior starts with where it is there before the first step.

    .. math:: \sigma_0 = \min\big(s\, e^{-\eta\, T},\; s / 10\big)

    with s the weights' prior standard deviation, T the steps up to where prices have ramped up, and η Adam's
    rate, by about which it moves a logarithm in a step. As narrow as that, so that weights leave the start as
    points do and inputs are found before their doubt drowns them; and no narrower, so that the doubt has its
    size when units are judged. Weights that were trained before are where they are to be, and start narrow.

    Args:
        gated: the model; of several prior scales the smallest counts.
        schedule: of the training.

    Returns:
        σ₀, at least the ``initial_scale`` of its weights, and that for trained ones.
    """
    recipe, weights = schedule.recipe, gated.weights
    scales = [weights.scale_of(name) for name in gated.weight_tensors()]
    if recipe.start == "trained" or not scales:
        return weights.initial_scale
    travel = schedule.rate * (recipe.warmup + recipe.ramp) * schedule.steps
    return max(min(scales) * min(exp(-travel), WIDEST), weights.initial_scale)


def spreads(recipe: Recipe, gated: GatedModel) -> bool:
    """Whether weights get a posterior in the compact part.

    Args:
        recipe: which may say so.
        gated: the model, at the decision: what is left of it is counted.
    """
    if recipe.compact_weights is not None:
        return recipe.compact_weights == "normal"
    return _few(gated, ROWS_A_WEIGHT)


def _few(gated: GatedModel, rows_a_weight: float) -> bool:
    """Whether a noise is learnt from fewer rows than so many for each weight."""
    few = gated.likelihood.rows < rows_a_weight * gated.network.parameter_count()
    return few and bool(gated.likelihood.plain.followed())


def announcement(gated: GatedModel) -> str:
    """What is said where weights get a posterior unasked.

    Args:
        gated: the model, whose weights are counted as they are now.
    """
    rows, weights = gated.likelihood.rows, gated.network.parameter_count()
    return (
        f"weights get a posterior, since a noise is learnt from {rows:,} rows beside {weights:,} weights "
        "(Recipe(compact_weights='points') keeps points)"
    )
