r"""g(x) = erf(x / √2): every Gaussian integral of on-line learning in closed form.

With (a, b) of variances A, B, covariance c, and Λ = (1 + A)(1 + B) − c²:

.. math::
    E[g(a)g(b)] = \tfrac2\pi \arcsin\frac{c}{\sqrt{(1+A)(1+B)}}, \qquad
    E[g'(a)g'(b)] = \frac{2}{\pi\sqrt\Lambda}, \qquad
    E[g''(a)g(b)] = -\frac{2c}{\pi(1+A)\sqrt\Lambda}.

The first: g(a) = 2 P(n < a) − 1 for a standard normal n, so the product is a quadrant probability of
(a − n, b − n'), whose correlation is the fraction under the arcsine (Sheppard). The others by Price's
theorem.

Source: D. Saad & S. Solla, "On-line learning in soft committee machines", Physical Review E 52 (1995) 4225.
Written down from the derivation above; tests hold them to numerical integration.
"""

from __future__ import annotations

import numpy as np
from scipy.special import erf

from bayesprune.theory.activation import Activation, Array


def _value(x: Array) -> Array:
    return np.asarray(erf(x / np.sqrt(2)))


def _slope(x: Array) -> Array:
    return np.asarray(np.sqrt(2 / np.pi) * np.exp(-(x**2) / 2))


def _overlap(cross: Array, a: Array, b: Array) -> Array:
    sine = cross / np.sqrt((1 + a) * (1 + b))
    return np.asarray(2 / np.pi * np.arcsin(np.clip(sine, -1, 1)))  # rounding alone can leave [−1, 1]


def _slopes(cross: Array, a: Array, b: Array) -> Array:
    return np.asarray(2 / np.pi / np.sqrt((1 + a) * (1 + b) - cross**2))


def _curvature(cross: Array, a: Array, b: Array) -> Array:
    return -cross / (1 + a) * _slopes(cross, a, b)


ERF = Activation(
    name="erf",
    value=_value,
    slope=_slope,
    overlap=_overlap,
    slopes=_slopes,
    curvature=_curvature,
    lipschitz=float(np.sqrt(2 / np.pi)),
    tilts=True,
)
