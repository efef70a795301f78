r"""Re-weighting: what is left of a student stands in for what was removed, by least squares, in closed form.

Among all second layers of the pruned student, the one closest to the student as it was:

.. math:: v' = \arg\min_{u}\; E\Big[\big(\textstyle\sum_i u_i g(\tilde\lambda_i)
               - \sum_j v_j g(\lambda_j)\big)^2\Big] = G^{+}_{\tilde{\ }\tilde{\ }}\, G_{\tilde{\ }\cdot}\, v

G are second moments of activations (arcsine or arc-cosine matrices), of pruned units λ̃ among themselves and
with the original ones. No teacher enters: like the data version ("fusing", Mariet & Sra, ICLR 2016), it needs
inputs only, and it is that version's limit for many rows. With several solutions it takes the smallest.
"""

from __future__ import annotations

import numpy as np

from bayesprune.theory.activation import Array, Units
from bayesprune.theory.committee import Committee
from bayesprune.theory.generalisation import grams
from bayesprune.theory.kernels import checked_kept
from bayesprune.theory.order import OrderParameters, order_parameters


def fused_readout(pruned: OrderParameters) -> Array:
    """The second layer that brings a pruned student closest to the original one.

    Args:
        pruned: of the pruned student, *with the original student in the teacher's place*.

    Returns:
        (units,), v'.
    """
    g = grams(pruned)
    return np.asarray(
        np.linalg.pinv(g.student, rcond=1e-12, hermitian=True) @ (g.cross @ pruned.teacher_readout)
    )


def fuse(pruned: Committee, original: Committee) -> Committee:
    """A pruned student under its re-weighted second layer.

    Args:
        pruned: units or edges of it are gone.
        original: as it was trained, on the same inputs.

    Returns:
        The pruned student with v'.

    Raises:
        TheoryError: inputs or activations differ.
    """
    return pruned.with_readout(fused_readout(order_parameters(pruned, original)))


def fuse_nodes(order: OrderParameters, units: Units | list[int]) -> OrderParameters:
    """Keep some units, re-weighted, on the level of order parameters.

    Args:
        order: the student as it was trained, and its teacher.
        units: (k,), the units to keep.

    Returns:
        Order parameters of the k units, with v'.

    Raises:
        TheoryError: units are not the student's, or there are none.
    """
    index = np.asarray(units, np.intp)
    checked_kept(index.size, order.units)
    kept = order.keep(index)
    against = OrderParameters(kept.Q, order.Q[index], order.Q, kept.readout, order.readout, order.activation)
    return kept.with_readout(fused_readout(against))
