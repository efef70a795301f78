r"""Random edge pruning in closed form: order parameters after each edge is kept with probability p.

With independent m_ia ~ Bernoulli(p) and w̃_ia = m_ia w_ia, from E[m m'] = p² for two edges and p for one:

.. math:: E[\tilde R] = p R, \qquad E[\tilde Q_{ij}] = p^2 Q_{ij} \ (i \ne j), \qquad
          E[\tilde Q_{ii}] = p\, Q_{ii}

exactly, for any d. Their variances vanish like 1/d:

.. math:: \mathrm{Var}\,\tilde R_{in} = \frac{p(1-p)}{d^2} \sum_a w_{ia}^2 B_{na}^2, \qquad
          \mathrm{Var}\,\tilde Q_{ij} = \frac{p^2(1-p^2)}{d^2} \sum_a w_{ia}^2 w_{ja}^2, \qquad
          \mathrm{Var}\,\tilde Q_{ii} = \frac{p(1-p)}{d^2} \sum_a w_{ia}^4

so that for d → ∞ the error of every single mask is the error at these expectations. A fixed number of edges
drawn without replacement has the same limit.
"""

from __future__ import annotations

import numpy as np

from bayesprune.errors import TheoryError
from bayesprune.theory.fuse import fused_readout
from bayesprune.theory.order import OrderParameters


def thinned(order: OrderParameters, keep: float, fused: bool = False) -> OrderParameters:
    """The student after random edge pruning, in the limit of many inputs.

    Args:
        order: the student as it was trained, and its teacher.
        keep: p, the share of edges that stay.
        fused: re-weight the second layer by least squares, see :mod:`bayesprune.theory.fuse`; pruned and
            original fields have covariance p Q.

    Returns:
        E[Q], E[R] and the second layer.

    Raises:
        TheoryError: p is not in (0, 1].

    Example:
        >>> eye = np.eye(1)
        >>> thinned(OrderParameters(eye, eye, eye, np.ones(1), np.ones(1)), 0.5).Q
        array([[0.5]])
    """
    if not 0 < keep <= 1:
        raise TheoryError(f"keep={keep}: the share of edges that stay lies in (0, 1].")
    q = keep**2 * order.Q
    np.fill_diagonal(q, keep * np.diag(order.Q))
    found = order.with_student(q, keep * order.R)
    if not fused:
        return found
    against = OrderParameters(q, keep * order.Q, order.Q, order.readout, order.readout, order.activation)
    return found.with_readout(fused_readout(against))
