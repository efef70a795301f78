"""Similarity of a student's units, in closed form: the kernels of a determinantal point process."""

from __future__ import annotations

import numpy as np

from bayesprune.errors import TheoryError
from bayesprune.selection import KDPP
from bayesprune.theory.activation import Array
from bayesprune.theory.generalisation import overlaps
from bayesprune.theory.order import OrderParameters


def node_kernel(order: OrderParameters, kind: str = "gram", bandwidth: float = 10.0) -> Array:
    r"""L, the kernel from which units are drawn with probability ∝ det L_S.

    - ``"gram"``: :math:`L_{ij} = E[g(\lambda_i) g(\lambda_j)]`, the arcsine matrix for erf. Volume sampling
      of the units' activations; the one for which expected errors have closed forms.
    - ``"fields"``: L = Q, with rows of W brought to length √d before, so that L_ii = 1. What the authors'
      public code of Acharyya et al. uses (its Gram matrix of pre-activations has this limit for many rows).
    - ``"gaussian"``: :math:`L_{ij} = \exp(-\beta\, E[(g(\lambda_i) - g(\lambda_j))^2])`. After Mariet & Sra,
      "Diversity networks" (ICLR 2016), who put the exponent on activation vectors over n rows: β/n there.

    Args:
        order: the student.
        kind: of the three above.
        bandwidth: β of ``"gaussian"``.

    Returns:
        (K, K), symmetric and positive semi-definite.

    Raises:
        TheoryError: the kind is unknown, β is not positive, or a unit has no weights under ``"fields"``.
    """
    own = np.diag(order.Q)
    if kind == "fields":
        if (own <= 0).any():
            dead = np.flatnonzero(own <= 0).tolist()
            raise TheoryError(
                f"Units {dead} have no weights, so kernel 'fields' cannot scale them: remove them before."
            )
        return np.asarray(order.Q / np.sqrt(np.outer(own, own)))
    if kind not in ("gram", "gaussian"):
        raise TheoryError(f"There is no kernel {kind!r}: use 'gram', 'fields' or 'gaussian'.")
    gram = overlaps(order.Q, own, own, order.activation)
    if kind == "gram":
        return gram
    if not bandwidth > 0:
        raise TheoryError(f"bandwidth={bandwidth}: give a positive number.")
    power = np.diag(gram)
    return np.asarray(np.exp(-bandwidth * (power[:, None] + power[None, :] - 2 * gram)))


def spectrum(kernel: Array, kept: int) -> tuple[Array, Array]:
    """Eigenvalues and eigenvectors of a kernel, rounding noise put at zero.

    Args:
        kernel: (K, K), symmetric and positive semi-definite.
        kept: k; the kernel must have at least this rank.

    Returns:
        (K,) eigenvalues, at least 0, and (K, K), eigenvectors in columns.

    Raises:
        TheoryError: k is out of range, or the kernel's rank is under k.
        SelectionError: the kernel is not finite, symmetric and positive semi-definite.
    """
    checked_kept(kept, len(kernel))
    found = KDPP.of(kernel)
    if found.rank < kept:
        raise TheoryError(
            f"The kernel has rank {found.rank}: no {kept} units are independent under it. Keep at most "
            f"{found.rank}; the others are copies or mixtures of those."
        )
    return found.eigenvalues, found.eigenvectors


def checked_kept(kept: int, units: int) -> int:
    """k, checked.

    Args:
        kept: units to keep.
        units: K.

    Returns:
        k.

    Raises:
        TheoryError: k is no whole number from 1 to K.
    """
    if int(kept) != kept or not 1 <= kept <= units:
        raise TheoryError(f"Cannot keep {kept} of {units} units: give a whole number from 1 to {units}.")
    return int(kept)
