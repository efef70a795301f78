r"""g(x) = max(0, x): the arc-cosine kernel.

With (a, b) of variances A, B, covariance c, and the angle θ between them, cos θ = c / √(AB), θ ∈ [0, π]:

.. math::
    E[g(a)g(b)] = \frac{\sqrt{AB}}{2\pi}\big(\sin\theta + (\pi-\theta)\cos\theta\big), \qquad
    E[g'(a)g'(b)] = \frac{\pi-\theta}{2\pi}, \qquad
    E[g''(a)g(b)] = \frac{\sqrt{AB - c^2}}{2\pi A}.

The second is the probability of a quadrant, an angle of π − θ out of 2π. The first is its integral over c
(Price's theorem: ∂E[gg]/∂c = E[g'g'], and E[gg] = 0 at θ = π). In the third g'' is Dirac's delta: the density
of a at 0, 1/√(2πA), times E[g(b) | a = 0] = √((B − c²/A) / 2π). A unit without weights (A = 0) has overlap 0.

Source: Y. Cho & L. Saul, "Kernel methods for deep learning", NIPS 2009 (kernel of degree 1, here halved, for
their kernel is 2 E[gg]). Tests hold all three to numerical integration.
"""

from __future__ import annotations

import numpy as np

from bayesprune.theory.activation import Activation, Array


def _angle(cross: Array, a: Array, b: Array) -> Array:
    norm = np.sqrt(a * b)
    cosine = np.divide(cross, norm, out=np.zeros(np.broadcast(cross, norm).shape), where=norm > 0)
    return np.asarray(np.arccos(np.clip(cosine, -1, 1)))  # rounding alone can leave [−1, 1]


def _value(x: Array) -> Array:
    return np.maximum(x, 0.0)


def _slope(x: Array) -> Array:
    return (x > 0).astype(np.float64)


def _overlap(cross: Array, a: Array, b: Array) -> Array:
    angle = _angle(cross, a, b)
    return np.asarray(np.sqrt(a * b) / (2 * np.pi) * (np.sin(angle) + (np.pi - angle) * np.cos(angle)))


def _slopes(cross: Array, a: Array, b: Array) -> Array:
    return (np.pi - _angle(cross, a, b)) / (2 * np.pi)


def _curvature(cross: Array, a: Array, b: Array) -> Array:
    return np.asarray(np.sqrt(np.maximum(a * b - cross**2, 0.0)) / (2 * np.pi * a))


RELU = Activation(
    name="relu",
    value=_value,
    slope=_slope,
    overlap=_overlap,
    slopes=_slopes,
    curvature=_curvature,
    lipschitz=1.0,
)
