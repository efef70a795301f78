"""The kernel of a DPP over units: how alike their activations are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesprune.errors import SelectionError

Array = NDArray[Any]
BETAS = ("rows", "median")


def squared_distances(vectors: Array) -> Array:
    """‖v_i − v_j‖², (n, n), zero on the diagonal and nowhere negative.

    Args:
        vectors: (n, numbers).
    """
    centred = vectors - vectors.mean(0)  # distances do not change, and less is lost to rounding
    gram = centred @ centred.T
    squares = np.diag(gram)
    distances: Array = np.clip(squares[:, None] + squares - 2 * gram, 0.0, None)
    np.fill_diagonal(distances, 0.0)
    return distances


def bandwidth(beta: float | str, distances: Array, numbers: int) -> float:
    """The β of a kernel, by rule or as given.

    Args:
        beta: ``"rows"``: 10 / numbers, so that units are compared by their mean squared difference, as
            Mariet & Sra have it with 10 / |T| (Diversity Networks, arXiv 1511.05077; literature, not
            re-read here); ``"median"``: 1 / the median of the squared distances of different units; or a
            positive number.
        distances: (n, n), squared.
        numbers: of a unit's vector.

    Raises:
        SelectionError: none of these.
    """
    if beta == "rows":
        return 10.0 / numbers
    if beta == "median":
        apart = distances[np.triu_indices(len(distances), 1)]
        middle = float(np.median(apart[apart > 0])) if (apart > 0).any() else 1.0
        return 1.0 / middle
    if isinstance(beta, bool) or not isinstance(beta, int | float) or not 0 < beta < math.inf:
        raise SelectionError(
            f"beta={beta!r} of a DPP: a positive number, or one of {', '.join(map(repr, BETAS))}."
        )
    return float(beta)


def gaussian_kernel(vectors: Array, beta: float | str = "rows") -> Array:
    r"""Gaussian kernel over units.

    .. math:: L_{ij} = \exp(-\beta \lVert v_i - v_j \rVert^2)

    Args:
        vectors: (n, numbers), the units' activations.
        beta: as for ``bandwidth``.

    Returns:
        (n, n), ones on the diagonal.

    Raises:
        SelectionError: numbers that are not finite, or no β.

    Example:
        >>> gaussian_kernel(np.array([[0.0], [0.0], [1.0]]), beta=1.0).round(3).tolist()
        [[1.0, 1.0, 0.368], [1.0, 1.0, 0.368], [0.368, 0.368, 1.0]]
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise SelectionError("A kernel needs finite vectors, (units, numbers).")
    return kernel_of(squared_distances(vectors), beta, vectors.shape[1])


def kernel_of(distances: Array, beta: float | str, numbers: int) -> Array:
    """The same kernel from squared distances.

    Args:
        distances: (n, n), squared.
        beta: as for ``bandwidth``.
        numbers: of a vector.
    """
    kernel: Array = np.exp(-bandwidth(beta, distances, numbers) * distances)
    return kernel


def edge_distances(weight: Array, gram: Array) -> Array:
    r"""Squared distances of weighted edge activations, from the edges' Gram matrix.

    .. math:: \lVert w_i x_i - w_j x_j \rVert^2 = w_i^2 G_{ii} + w_j^2 G_{jj} - 2 w_i w_j G_{ij}

    Args:
        weight: (n,), of one unit's incoming edges.
        gram: (n, n), XᵀX of what they are multiplied by.

    Returns:
        (n, n), zero on the diagonal and nowhere negative.
    """
    products = weight[:, None] * gram * weight
    squares = np.diag(products)
    distances: Array = np.clip(squares[:, None] + squares - 2 * products, 0.0, None)
    np.fill_diagonal(distances, 0.0)
    return distances
