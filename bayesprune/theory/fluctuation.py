r"""The term of second order in the learning rate: E[g'(λ_i) g'(λ_k) Δ²], all pairs (i, k) at once.

Δ = Σ_a u_a g(z_a) is student minus teacher, u = (v, −v*), z = (λ, ρ) ~ N(0, C).

**erf, in closed form.** g'(λ_i) g'(λ_k) = (2/π) exp(−λ_i²/2 − λ_k²/2) tilts the Gaussian of z into another,
of covariance

.. math:: \tilde C = C - C_{\cdot s}\,(1 + C_{ss})^{-1} C_{s \cdot}, \qquad s = (i, k)

(for i = k the two factors are one direction with precision 2, which the same formula gives), and of mass
E[g'(λ_i)g'(λ_k)]. Under it E[Δ²] is a double sum of arcsines, twice a generalisation error:

.. math:: E[g'(\lambda_i) g'(\lambda_k) \Delta^2] = E[g'(\lambda_i) g'(\lambda_k)]
          \sum_{ab} u_a u_b \tfrac2\pi \arcsin
          \frac{\tilde C_{ab}}{\sqrt{(1 + \tilde C_{aa})(1 + \tilde C_{bb})}}

Written out, this is Saad & Solla's I₄ (1995). **Any other activation, ReLU among them**: I₄ of ReLU holds
probabilities of orthants in four dimensions, which have no elementary closed form; there the expectation is
integrated over a fixed set of scrambled Sobol points (quasi-Monte Carlo), the same in every call.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from bayesprune.theory.activation import Activation, Array

POINTS_LOG2 = 13


def fluctuation(covariance: Array, contrast: Array, students: int, activation: Activation) -> Array:
    """E[g'(λ_i) g'(λ_k) Δ²] for all pairs of the student's units.

    Args:
        covariance: (K + M, K + M), C, of the local fields, the student's first.
        contrast: (K + M,), u = (v, −v*).
        students: K.
        activation: g.

    Returns:
        (K, K), symmetric.
    """
    if activation.tilts:
        return _tilted(covariance, contrast, students, activation)
    return _integrated(covariance, contrast, students, activation)


def _tilted(covariance: Array, contrast: Array, students: int, activation: Activation) -> Array:
    i, k = np.triu_indices(students)
    own = np.diag(covariance)
    sides = np.stack([covariance[i], covariance[k]], axis=1)  # (pairs, 2, K + M), C_s.
    blocks = (
        np.eye(2)
        + np.stack([sides[:, :, i], sides[:, :, k]], axis=-1)[np.arange(len(i)), :, np.arange(len(i))]
    )  # (pairs, 2, 2), 1 + C_ss
    tilted = covariance - sides.mT @ np.linalg.solve(blocks, sides)  # (pairs, K + M, K + M)
    variances = np.diagonal(tilted, axis1=1, axis2=2)
    moments = activation.overlap(tilted, variances[:, :, None], variances[:, None, :])
    mass = activation.slopes(covariance[i, k], own[i], own[k])
    found = np.zeros((students, students))
    found[i, k] = found[k, i] = mass * np.einsum("a,pab,b->p", contrast, moments, contrast)
    return found


def _integrated(covariance: Array, contrast: Array, students: int, activation: Activation) -> Array:
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T  # continuous in C, singular or not
    z = _points(len(covariance)) @ root  # (points, K + M)
    difference = activation.value(z) @ contrast
    weighted = activation.slope(z[:, :students]) * difference[:, None]
    return np.asarray(weighted.T @ weighted / len(z))


@lru_cache(maxsize=8)
def _points(dimension: int) -> Array:
    """Standard normal points, (2 ** POINTS_LOG2, dimension), that fill space evenly."""
    uniform = qmc.Sobol(dimension, seed=0).random_base2(POINTS_LOG2)
    return np.asarray(ndtri(np.clip(uniform, 1e-12, 1 - 1e-12)))
