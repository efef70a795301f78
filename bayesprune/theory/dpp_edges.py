r"""DPP edge pruning of a student at independent inputs, where the kernel is a diagonal and one product.

With x ~ N(0, I_d) the contributions w_i x_i / √d of a unit's edges are independent, and their mean squared
differences are (w_i² + w_j²) / d. The kernel of :class:`bayesprune.selection.DPPEdges` is then, with d in β,

.. math:: L_{ij} = a_i a_j + c_i \delta_{ij}, \qquad a_i = e^{-\beta w_i^2}, \qquad
          c_i = 1 + \varepsilon - a_i^2, \qquad
          \det L_S = \prod_{i \in S} c_i + \sum_{i \in S} a_i^2 \prod_{j \in S, j \ne i} c_j .

All terms are positive: a k-DPP is a mixture of sets of k edges with independent odds c, and of such sets of
k − 1 edges beside one of its own. Odds grow with w²: at independent inputs edges that differ are edges with
weight, so that DPP edge pruning lies between pruning at random (β → ∞: all c are equal) and by magnitude.
Derived here; that a unit's edges are drawn by a k-DPP is Acharyya et al.'s (UAI 2021), see there.
"""

from __future__ import annotations

import math

import numpy as np

from bayesprune.errors import TheoryError
from bayesprune.selection.dpp.sample import log_polynomials
from bayesprune.theory.activation import Array
from bayesprune.theory.committee import Committee
from bayesprune.theory.edges import Mask, checked_edges


def dpp_edges(
    student: Committee,
    edges: int,
    rng: np.random.Generator,
    beta: float | str = "median",
    jitter: float = 0.01,
) -> Mask:
    """A mask that keeps of every unit's edges a k-DPP, at independent inputs.

    Args:
        student: of K units on d inputs.
        edges: how many to keep; every unit keeps as many, up to one that some units, drawn by lot, keep more.
        rng: of the draw.
        beta: of the kernel, on squared weights; ``"median"`` is 1 / the median of w_i² + w_j² of a unit.
        jitter: ε.

    Returns:
        (K, d), True where kept.

    Raises:
        TheoryError: the number of edges, β or ε is out of range.
    """
    whole, more = divmod(checked_edges(edges, student), student.units)
    counts = np.full(student.units, whole)
    counts[rng.permutation(student.units)[:more]] += 1
    return np.stack(
        [_drawn(w, int(k), rng, beta, jitter) for w, k in zip(student.weights, counts, strict=True)]
    )


def edge_kernel(weights: Array, beta: float | str = "median", jitter: float = 0.01) -> tuple[Array, Array]:
    """The kernel of one unit's edges at independent inputs, as its parts.

    Args:
        weights: (d,).
        beta: as for ``dpp_edges``.
        jitter: ε.

    Returns:
        a and c, (d,) each: L = a aᵀ + diag(c).

    Raises:
        TheoryError: β or ε is out of range.

    Example:
        >>> a, c = edge_kernel(np.array([0.0, 1.0]), beta=1.0, jitter=0.0)
        >>> (np.outer(a, a) + np.diag(c)).round(3).tolist()
        [[1.0, 0.368], [0.368, 1.0]]
    """
    squares = np.square(weights)
    if beta == "median":
        sums = (squares[:, None] + squares)[np.triu_indices(len(squares), 1)]
        middle = float(np.median(sums[sums > 0])) if (sums > 0).any() else 1.0
        beta = 1.0 / middle
    if isinstance(beta, bool) or not isinstance(beta, int | float) or not 0 < beta < math.inf:
        raise TheoryError(f"beta={beta!r}: a positive number, or 'median'.")
    if not 0 <= jitter < math.inf:
        raise TheoryError(f"jitter={jitter!r} is added to the kernel's diagonal: it must be 0 or more.")
    a = np.exp(-beta * squares)
    return a, jitter - np.expm1(-2 * beta * squares)


def log_sums(a: Array, c: Array, most: int) -> tuple[Array, Array]:
    r"""Logarithms of the sums over all sets of j of the first m edges, of both parts of the determinant.

    .. math:: f_j^{(m)} = f_j^{(m-1)} + c_m f_{j-1}^{(m-1)} + a_m^2\, e_{j-1}^{(m-1)}

    Args:
        a: (d,), of the kernel.
        c: (d,).
        most: largest j.

    Returns:
        (most + 1, d + 1) each: log e, of Π c, and log f, of the sums with one a².
    """
    even = log_polynomials(c, most)
    with np.errstate(divide="ignore"):
        logs, doubled = np.log(c), 2 * np.log(a)
    one = np.full_like(even, -np.inf)
    for m in range(1, len(a) + 1):
        with_it = np.logaddexp(logs[m - 1] + one[:-1, m - 1], doubled[m - 1] + even[:-1, m - 1])
        one[0, m] = one[0, m - 1]
        one[1:, m] = np.logaddexp(one[1:, m - 1], with_it)
    return even, one


def _drawn(weights: Array, count: int, rng: np.random.Generator, beta: float | str, jitter: float) -> Mask:
    """(d,), one unit's: edges are asked one after the other, the last one first."""
    mask = np.zeros(len(weights), bool)
    a, c = edge_kernel(weights, beta, jitter)
    even, one = log_sums(a, c, count)
    total = np.logaddexp(even[count, -1], one[count, -1])
    if not np.isfinite(total):
        raise TheoryError(
            f"No set of {count} of these {len(weights)} edges has any probability: give jitter=0.01."
        )
    waits, left = bool(np.log(rng.random()) < one[count, -1] - total), count  # for the one with a²
    with np.errstate(divide="ignore"):
        logs, doubled = np.log(c), 2 * np.log(a)
    for m in range(len(weights), 0, -1):
        if left == 0:
            break
        table = one if waits else even
        kept = logs[m - 1] + table[left - 1, m - 1] - table[left, m]
        special = doubled[m - 1] + even[left - 1, m - 1] - table[left, m] if waits else -np.inf
        at = np.log(rng.random())
        if at < np.logaddexp(kept, special):
            mask[m - 1], left, waits = True, left - 1, waits and not at < special
    return mask
