r"""Draws from a k-DPP: k units, the likelier the more they differ.

.. math:: P(S) = \frac{\det L_S}{\sum_{|T| = k} \det L_T} = \frac{\det L_S}{e_k(\lambda_1, \dots, \lambda_n)}

Kulesza & Taskar (2011), k-DPPs: Fixed-Size Determinantal Point Processes. In two phases: which k
eigenvectors, by elementary symmetric polynomials; then a projection DPP over these, unit by unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesprune.errors import SelectionError

Array = NDArray[Any]


def log_polynomials(eigenvalues: Array, degree: int) -> Array:
    r"""Logarithms of the elementary symmetric polynomials of the first m eigenvalues, for all m.

    .. math:: e_j^{(m)} = e_j^{(m-1)} + \lambda_m\, e_{j-1}^{(m-1)}

    All terms are positive, so nothing cancels; in logarithms nothing overflows either.

    Args:
        eigenvalues: (n,), none negative.
        degree: largest j.

    Returns:
        (degree + 1, n + 1): log e_j of the first m eigenvalues at [j, m]; −inf where there are too few.

    Example:
        >>> np.exp(log_polynomials(np.array([1.0, 2.0, 3.0]), 2)[:, -1]).round(9).tolist()
        [1.0, 6.0, 11.0]
    """
    with np.errstate(divide="ignore"):
        logs = np.log(np.asarray(eigenvalues, dtype=np.float64))
    table = np.full((degree + 1, len(logs) + 1), -np.inf)
    table[0] = 0.0
    for m, log in enumerate(logs, start=1):
        table[1:, m] = np.logaddexp(table[1:, m - 1], log + table[:-1, m - 1])
    return table


@dataclass(frozen=True, eq=False)
class KDPP:
    """A kernel, decomposed once, from which subsets of any size are drawn.

    Attributes:
        eigenvalues: (n,), ascending; what is zero up to rounding is zero.
        eigenvectors: (n, n), in columns.
        rank: eigenvalues above zero: the largest subset that has any probability.
    """

    eigenvalues: Array
    eigenvectors: Array
    rank: int

    @staticmethod
    def of(kernel: Array, jitter: float = 0.0) -> KDPP:
        """Decompose a kernel.

        Args:
            kernel: (n, n), symmetric, positive semi-definite.
            jitter: is added to the diagonal: L + jitter·I, which gives subsets of any size a probability.

        Raises:
            SelectionError: the kernel is not finite, not square, not symmetric, or not positive
                semi-definite; a negative jitter.
        """
        kernel = np.asarray(kernel, dtype=np.float64)
        if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or not len(kernel):
            raise SelectionError(f"A DPP's kernel is a square matrix, and this one is {kernel.shape}.")
        if not np.isfinite(kernel).all():
            raise SelectionError(
                "The DPP's kernel holds numbers that are not finite: look at the activations."
            )
        if not jitter >= 0:
            raise SelectionError(
                f"jitter={jitter!r} is added to the kernel's diagonal: it must be 0 or more."
            )
        scale = np.abs(kernel).max()
        if np.abs(kernel - kernel.T).max() > 1e-8 * max(scale, np.finfo(float).tiny):
            raise SelectionError("The DPP's kernel is not symmetric: pass (L + L.T) / 2 if that is meant.")
        values, vectors = np.linalg.eigh((kernel + kernel.T) / 2)
        noise = len(values) * np.finfo(float).eps * max(float(np.abs(values).max()), np.finfo(float).tiny)
        if values[0] < -100 * noise:
            raise SelectionError(
                f"The DPP's kernel has the eigenvalue {values[0]:.3g}: it must be positive semi-definite."
            )
        values = np.where(values > noise, values, 0.0) + jitter
        return KDPP(values, vectors, int((values > 0).sum()))

    def sample(self, k: int, generator: np.random.Generator) -> Array:
        """One subset of k units.

        Args:
            k: its size, 0 to n.
            generator: NumPy's.

        Returns:
            (k,), int, ascending.

        Raises:
            SelectionError: k is negative, above n, or above the kernel's rank.
        """
        units = len(self.eigenvalues)
        if not 0 <= k <= units:
            raise SelectionError(f"k={k} of {units} units: a subset has between 0 and {units} of them.")
        if k > self.rank:
            raise SelectionError(
                f"k={k} is more than the rank {self.rank} of the kernel over {units} units: some units are "
                f"copies of others, and no set of {k} has any probability. Ask for at most {self.rank}, or "
                "give jitter=1e-6, which lets copies in where they are needed."
            )
        chosen = self._eigenvectors(k, generator)
        return np.sort(sample_projection(self.eigenvectors[:, chosen], generator))

    def _eigenvectors(self, k: int, generator: np.random.Generator) -> Array:
        """Which k eigenvectors: m is among them with probability λ_m e_{j−1}(m−1) / e_j(m)."""
        table = log_polynomials(self.eigenvalues, k)
        chosen, left = [], k
        for m in range(len(self.eigenvalues), 0, -1):
            if left == 0:
                break
            odds = np.log(self.eigenvalues[m - 1]) if self.eigenvalues[m - 1] > 0 else -np.inf
            if np.log(generator.random()) < odds + table[left - 1, m - 1] - table[left, m]:
                chosen.append(m - 1)
                left -= 1
        return np.array(chosen, dtype=np.int64)


def sample_projection(basis: Array, generator: np.random.Generator) -> Array:
    """One draw from the projection DPP of an orthonormal basis: as many units as it has columns.

    Units come one by one, with probability ∝ the squared distance of their row to the span of the rows that
    came before; the distances are updated as in a pivoted Cholesky factorisation, O(n·k²) in all.

    Args:
        basis: (n, k), orthonormal columns.
        generator: NumPy's.

    Returns:
        (k,), int, in the order in which they came.
    """
    units, k = basis.shape
    left = (basis**2).sum(1)  # (n,), squared distances
    factor = np.zeros((units, k))
    chosen = np.zeros(k, dtype=np.int64)
    for t in range(k):
        left = np.clip(left, 0.0, None)
        left[chosen[:t]] = 0.0
        cumulated = left.cumsum()
        unit = int(np.searchsorted(cumulated, generator.random() * cumulated[-1], side="right"))
        unit = min(unit, units - 1)
        column = (basis @ basis[unit] - factor[:, :t] @ factor[unit, :t]) / np.sqrt(left[unit])
        factor[:, t], chosen[t] = column, unit
        left = left - column**2
    return chosen


def sample_kdpp(kernel: Array, k: int, seed: int | np.random.Generator = 0, jitter: float = 0.0) -> Array:
    """One draw of k units from the k-DPP of a kernel.

    Args:
        kernel: (n, n), symmetric, positive semi-definite.
        k: units to draw.
        seed: or a NumPy generator.
        jitter: added to the diagonal.

    Returns:
        (k,), int, ascending.

    Raises:
        SelectionError: as ``KDPP.of`` and ``KDPP.sample``.

    Example:
        >>> points = np.array([0.0, 0.01, 1.0, 1.01])  # two pairs of near copies
        >>> kernel = np.exp(-10 * (points[:, None] - points) ** 2)
        >>> [int(unit) // 2 for unit in sample_kdpp(kernel, 2, seed=0)]  # one of each pair
        [0, 1]
    """
    return KDPP.of(kernel, jitter).sample(k, np.random.default_rng(seed))
