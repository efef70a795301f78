"""With what probability a rule keeps a unit, and two units together, in closed form."""

from __future__ import annotations

import numpy as np

from bayesprune.theory.activation import Array
from bayesprune.theory.kernels import checked_kept, spectrum
from bayesprune.theory.symmetric import log_symmetric, log_symmetric_without_one, log_symmetric_without_two


def random_inclusion(units: int, kept: int) -> Array:
    """P(i and j are kept) when k of K units are drawn without replacement.

    Args:
        units: K.
        kept: k.

    Returns:
        (K, K): k/K on the diagonal, k(k−1) / (K(K−1)) off it.

    Raises:
        TheoryError: k is out of range.

    Example:
        >>> random_inclusion(3, 2).round(3)
        array([[0.667, 0.333, 0.333],
               [0.333, 0.667, 0.333],
               [0.333, 0.333, 0.667]])
    """
    checked_kept(kept, units)
    both = kept * (kept - 1) / (units * (units - 1)) if units > 1 else 0.0
    return np.where(np.eye(units, dtype=bool), kept / units, both)


def dpp_inclusion(kernel: Array, kept: int) -> Array:
    r"""P(i and j are kept) under a k-DPP, P(S) ∝ det L_S for |S| = k.

    A k-DPP is a mixture of projection processes, one for each set J of k eigenvectors u_l, with weight
    ∏_{l∈J} λ_l / e_k(λ) (Kulesza & Taskar, "Determinantal point processes for machine learning", 2012, §
    5.2). In one of them P(i, j) = K_ii K_jj − K_ij² with K = Σ_{l∈J} u_l u_lᵀ. Averaged over J, with
    p_lm = λ_l λ_m e_{k−2}(λ without l, m) / e_k(λ) the probability that J holds both l and m:

    .. math:: P(i, j) = \sum_{l \ne m} p_{lm} \big(u_{il}^2 u_{jm}^2 - u_{il} u_{jl} u_{im} u_{jm}\big),
              \qquad P(i) = \sum_l u_{il}^2\, \lambda_l\, e_{k-1}(\lambda_{-l}) / e_k(\lambda)

    The sums take K⁴ operations, three seconds for 120 units.

    Args:
        kernel: (K, K), L.
        kept: k.

    Returns:
        (K, K), P(i) on the diagonal.

    Raises:
        TheoryError: k is out of range, or the kernel's rank is under k.
    """
    values, vectors = spectrum(kernel, kept)
    values = values / values.max()  # the probabilities do not depend on the scale
    total = log_symmetric(values, kept)[kept]
    single = values * np.exp(log_symmetric_without_one(values, kept - 1) - total)
    double = np.outer(values, values) * np.exp(log_symmetric_without_two(values, kept - 2) - total)
    squares = vectors**2
    pair = squares @ double @ squares.T
    pair -= np.einsum("il,jl,lm,im,jm->ij", vectors, vectors, double, vectors, vectors, optimize=True)
    np.fill_diagonal(pair, squares @ single)
    return np.asarray(pair)
