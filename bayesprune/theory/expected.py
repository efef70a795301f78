"""Generalisation error after node pruning, averaged over the rule's draws, in closed form."""

from __future__ import annotations

import numpy as np

from bayesprune.errors import TheoryError
from bayesprune.theory.activation import Array
from bayesprune.theory.generalisation import generalisation_error, grams
from bayesprune.theory.kernels import spectrum
from bayesprune.theory.order import OrderParameters
from bayesprune.theory.symmetric import log_symmetric, log_symmetric_without_one


def expected_error(order: OrderParameters, inclusion: Array) -> float:
    r"""E[ε] over the draws of any rule that keeps nodes and leaves their readouts alone.

    The pruned student is Σ_i m_i v_i g(λ_i), m_i ∈ {0, 1}; ε is quadratic in m, so that its expectation needs
    no more than the probabilities P(i, j) that two units are kept:

    .. math:: E[\varepsilon] = \tfrac12 \sum_{ij} P(i, j)\, v_i v_j G^{ss}_{ij}
              - \sum_i P(i)\, v_i (G^{st} v^*)_i + \tfrac12 v^{*\top} G^{tt} v^*

    Args:
        order: the student as it was trained, and its teacher.
        inclusion: (K, K), P(i, j), P(i) on the diagonal; from :func:`random_inclusion` or
            :func:`dpp_inclusion`.

    Returns:
        The expected error.

    Raises:
        TheoryError: ``inclusion`` has another shape.

    Example:
        >>> from bayesprune.theory import OrderParameters, random_inclusion
        >>> eye = np.eye(2)
        >>> twins = OrderParameters(np.ones((2, 2)), np.ones((2, 1)), eye[:1, :1], eye.mean(0), np.ones(1))
        >>> expected_error(twins, np.ones((2, 2)))  # nothing is removed
        0.0
    """
    if inclusion.shape != (order.units, order.units):
        raise TheoryError(
            f"inclusion has shape {inclusion.shape}: give ({order.units}, {order.units}), pairs of units."
        )
    g, v, u = grams(order), order.readout, order.teacher_readout
    kept = v @ (inclusion * g.student) @ v - 2 * (np.diag(inclusion) * v) @ g.cross @ u
    return max(float(0.5 * (kept + u @ g.teacher @ u)), 0.0)


def expected_fused_error(order: OrderParameters, kept: int) -> float:
    r"""E[ε] when units are drawn by a k-DPP on their Gram matrix G and fused by least squares.

    Fusing replaces the student f = Σ v_j g_j by its projection Π_S f onto the span of the kept units. Minors
    of G with one row replaced sum to ∇e_{k+1}(G), which gives, for any function t,

    .. math:: E_S\big[\langle t, (1 - \Pi_S) g_j\rangle\big] = \big(\langle t, g\rangle^\top A\big)_j, \qquad
              A = \frac{\nabla e_{k+1}(G)}{e_k(G)}
                = \sum_l \frac{e_k(\lambda_{-l})}{e_k(\lambda)}\, u_l u_l^\top

    with (λ_l, u_l) the eigenpairs of G, and so, exactly and for any number of units,

    .. math:: E[\varepsilon] = \varepsilon + (G^{st} v^*)^\top A v - \tfrac12 v^\top G A v .

    A perfect student (t = f) has ½ vᵀ G A v. Derived for this library (docs/statistical_mechanics.md); the
    special case of the trace, Σ_l λ_l e_k(λ_{-l}) = (k+1) e_{k+1}, is Deshpande, Rademacher, Vempala & Wang,
    "Matrix approximation and projective clustering via volume sampling" (2006). Tests hold it to enumeration.

    Args:
        order: the student as it was trained, and its teacher.
        kept: k.

    Returns:
        The expected error.

    Raises:
        TheoryError: k is out of range, or above the rank of G.
    """
    g = grams(order)
    shrink = residual_share(g.student, kept)
    removed = shrink @ order.readout
    cross = g.cross @ order.teacher_readout
    value = generalisation_error(order) + cross @ removed - 0.5 * order.readout @ g.student @ removed
    return max(float(value), 0.0)


def residual_share(gram: Array, kept: int) -> Array:
    """A, for which G A is the expected residual of all units on those that a k-DPP on G keeps.

    Args:
        gram: (K, K), G.
        kept: k.

    Returns:
        (K, K), symmetric; 0 for k = K.

    Raises:
        TheoryError: k is out of range, or above the rank of G.
    """
    values, vectors = spectrum(gram, kept)
    share = np.exp(log_symmetric_without_one(values, kept) - log_symmetric(values, kept)[kept])
    return np.asarray((vectors * share) @ vectors.T)
