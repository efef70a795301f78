r"""Magnitude edge pruning in closed form: order parameters after every weight with |w| < τ is put at zero.

For d → ∞ with jointly normal weights (w_i, w_j, B_n at one input), which on-line learning from normal initial
weights keeps normal. With t_i = τ/√Q_ii and h(t) = 2 (Φ(−t) + t φ(t)) the share of a normal's second moment
beyond ± t:

.. math:: \tilde Q_{ii} = h(t_i)\, Q_{ii}, \qquad \tilde R_{in} = h(t_i)\, R_{in}, \qquad
          \tilde Q_{ij} = 2 \sqrt{Q_{ii} Q_{jj}}\, \big(m(t_i, t_j, r) - m(t_i, t_j, -r)\big)

r being the correlation of w_i and w_j, and m(s, t, r) = E[XY; X > s, Y > t] for standard normals of
correlation r,

.. math:: m = r\, P(X > s, Y > t) + r s\, \varphi(s)\, \Phi(-b) + r t\, \varphi(t)\, \Phi(-a)
              + \tfrac{\sqrt{1 - r^2}}{2\pi} \exp\!\Big(-\frac{s^2 - 2rst + t^2}{2(1 - r^2)}\Big)

with a = (s − r t)/√(1−r²), b = (t − r s)/√(1−r²) (Rosenbaum, JRSS B 1961); the quadrant's probability is by
Owen's T. The second formula: given w_i, B_n is normal around (R_in/Q_ii) w_i.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, owens_t

from bayesprune.errors import TheoryError
from bayesprune.theory.activation import Array
from bayesprune.theory.fuse import fused_readout
from bayesprune.theory.order import OrderParameters


def clipped(order: OrderParameters, keep: float, fused: bool = False) -> OrderParameters:
    """The student after magnitude edge pruning over the whole layer, in the limit of many inputs.

    Args:
        order: the student as it was trained, and its teacher; every unit has weights.
        keep: p, the share of edges that stay, those of largest magnitude.
        fused: re-weight the second layer by least squares, see :mod:`bayesprune.theory.fuse`; pruned unit i
            and original unit j have covariance h(t_i) Q_ij.

    Returns:
        Q, R and the second layer, exact for normal weights.

    Raises:
        TheoryError: p is not in (0, 1], or a unit has no weights.
    """
    own = np.sqrt(np.diag(order.Q))
    if not 0 < keep <= 1:
        raise TheoryError(f"keep={keep}: the share of edges that stay lies in (0, 1].")
    if not (own > 0).all():
        raise TheoryError(f"Units {np.flatnonzero(own <= 0).tolist()} have no weights: remove them before.")
    if keep == 1:
        return order
    threshold = brentq(lambda tau: 2 * ndtr(-tau / own).mean() - keep, 0.0, 40 * own.max())
    at = threshold / own
    share = 2 * (ndtr(-at) + at * _density(at))  # (K,), h(t_i)
    correlation = np.clip(order.Q / np.outer(own, own), -1 + 1e-12, 1 - 1e-12)
    s, t = np.broadcast_arrays(at[:, None], at[None, :])
    q = 2 * np.outer(own, own) * (_moment(s, t, correlation) - _moment(s, t, -correlation))
    np.fill_diagonal(q, share * np.diag(order.Q))
    found = order.with_student((q + q.T) / 2, share[:, None] * order.R)
    if not fused:
        return found
    cross = share[:, None] * order.Q
    against = OrderParameters(found.Q, cross, order.Q, order.readout, order.readout, order.activation)
    return found.with_readout(fused_readout(against))


def _density(x: Array) -> Array:
    return np.asarray(np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi))


def _moment(s: Array, t: Array, r: Array) -> Array:
    """E[XY; X > s, Y > t] for s, t > 0."""
    root = np.sqrt(1 - r**2)
    a, b = (s - r * t) / root, (t - r * s) / root
    quadrant = (ndtr(-s) + ndtr(-t)) / 2 - owens_t(s, b / s) - owens_t(t, a / t)
    edge = root / (2 * np.pi) * np.exp(-(s**2 - 2 * r * s * t + t**2) / (2 * root**2))
    return np.asarray(r * (quadrant + s * _density(s) * ndtr(-b) + t * _density(t) * ndtr(-a)) + edge)
