r"""Elementary symmetric polynomials, the normalising constants of k-DPPs, and what they are without a value.

.. math:: e_k(\lambda) = \sum_{|S| = k} \prod_{l \in S} \lambda_l

All are built by e_k(λ ∪ {x}) = e_k(λ) + x e_{k−1}(λ): sums of products of what is not negative, so that
nothing cancels and small eigenvalues keep their relative precision; in logarithms, so that nothing overflows.
"""

from __future__ import annotations

import numpy as np

from bayesprune.theory.activation import Array, Units


def log_symmetric(values: Array, degree: int) -> Array:
    """Logarithms of e_0 … e_degree of all values.

    Args:
        values: (n,), not negative.
        degree: the highest.

    Returns:
        (degree + 1,), −inf where there are too few values above 0.

    Example:
        >>> np.exp(log_symmetric(np.array([1.0, 2.0, 3.0]), 2)).round(9)
        array([ 1.,  6., 11.])
    """
    return np.asarray(_without(values, degree, np.zeros((1, 0), np.intp))[0])


def log_symmetric_without_one(values: Array, degree: int) -> Array:
    """Logarithm of e_degree of all values but one, for each in turn.

    Args:
        values: (n,), not negative.
        degree: of the polynomial.

    Returns:
        (n,).
    """
    return np.asarray(_without(values, degree, np.arange(len(values))[:, None])[:, degree])


def log_symmetric_without_two(values: Array, degree: int) -> Array:
    """Logarithm of e_degree of all values but two, for each pair; −inf on the diagonal.

    Args:
        values: (n,), not negative.
        degree: of the polynomial; −inf everywhere if negative.

    Returns:
        (n, n), symmetric.
    """
    number = len(values)
    found = np.full((number, number), -np.inf)
    if degree >= 0 and number > 1:
        first, second = np.triu_indices(number, 1)
        logs = _without(values, degree, np.stack([first, second], 1))[:, degree]
        found[first, second] = found[second, first] = logs
    return found


def _without(values: Array, degree: int, left_out: Units) -> Array:
    """(cases, degree + 1): the polynomials' logarithms, in each case without the values of a row."""
    found = np.full((len(left_out), degree + 1), -np.inf)
    found[:, 0] = 0.0
    with np.errstate(divide="ignore"):
        logs = np.log(values)
    for index, log in enumerate(logs):
        present = (left_out != index).all(1)
        top = min(index + 1, degree)  # of so few values, higher polynomials are 0
        added = np.logaddexp(found[:, 1 : top + 1], log + found[:, :top])
        found[:, 1 : top + 1] = np.where(present[:, None], added, found[:, 1 : top + 1])
    return found
