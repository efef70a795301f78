r"""Elementary symmetric polynomials, the normalising constants of k-DPPs.

.. math:: e_k(\lambda) = \sum_{|S| = k} \prod_{l \in S} \lambda_l

All are built by e_k(λ ∪ {x}) = e_k(λ) + x e_{k−1}(λ): sums of products of what is not negative, so that
nothing cancels and small eigenvalues keep their relative precision.
"""

from __future__ import annotations

import numpy as np

from bayesprune.theory.activation import Array


def symmetric(values: Array, degree: int) -> Array:
    """e_0 … e_degree of all values.

    Args:
        values: (n,), not negative.
        degree: the highest.

    Returns:
        (degree + 1,).

    Example:
        >>> symmetric(np.array([1.0, 2.0, 3.0]), 2)
        array([ 1.,  6., 11.])
    """
    return _without(values, degree, np.zeros((1, 0), np.intp))[0]


def symmetric_without_one(values: Array, degree: int) -> Array:
    """e_degree of all values but one, for each in turn.

    Args:
        values: (n,), not negative.
        degree: of the polynomial.

    Returns:
        (n,).
    """
    return _without(values, degree, np.arange(len(values))[:, None])[:, degree]


def symmetric_without_two(values: Array, degree: int) -> Array:
    """e_degree of all values but two, for each pair; 0 on the diagonal.

    Args:
        values: (n,), not negative.
        degree: of the polynomial; 0 everywhere if negative.

    Returns:
        (n, n), symmetric.
    """
    number = len(values)
    found = np.zeros((number, number))
    if degree >= 0 and number > 1:
        first, second = np.triu_indices(number, 1)
        found[first, second] = _without(values, degree, np.stack([first, second], 1))[:, degree]
    return found + found.T


def _without(values: Array, degree: int, left_out: Array) -> Array:
    """(cases, degree + 1): the polynomials, in each case without the values of a row of ``left_out``."""
    found = np.zeros((len(left_out), degree + 1))
    found[:, 0] = 1.0
    for index, value in enumerate(values):
        present = (left_out != index).all(1, keepdims=True)
        found[:, 1:] += np.where(present, value, 0.0) * found[:, :-1]
    return found
