r"""Bounds on the error of a pruned student; derivations are in docs/statistical_mechanics.md.

With f the student, f̃ what pruning leaves of it and t the teacher, ‖·‖ the L² norm under x ~ N(0, 1),
ε = ½‖f − t‖² the error before, ε̃ = ½‖f̃ − t‖² the error after, δ = ½‖f̃ − f‖² the *distortion*:

1. :func:`error_range`: (√ε − √δ)² ≤ ε̃ ≤ (√ε + √δ)², any pruning.
2. :func:`node_distortion_bound`: δ ≤ ½ (Σ_{j removed} |v_j| ‖g_j‖)², with and without fusing.
3. :func:`edge_distortion_bound`: δ ≤ ½ L² (Σ_i |v_i| √D_i)², D_i what unit i lost of Q_ii, L the Lipschitz
   constant.
4. :func:`volume_distortion_bound`: E δ ≤ ½ ‖v‖² Σ_{l>k} λ_l for k-DPP nodes on the Gram matrix, fused; its
   eigenvalues λ_1 ≥ λ_2 ≥ …

They are this library's own: the bounds of Acharyya et al. (UAI 2021) stand in the paper's text, which could
not be read for it.
"""

from __future__ import annotations

import numpy as np

from bayesprune.errors import TheoryError
from bayesprune.theory.activation import Array, Units
from bayesprune.theory.generalisation import generalisation_error, grams
from bayesprune.theory.kernels import checked_kept
from bayesprune.theory.order import OrderParameters


def distortion(pruned: OrderParameters) -> float:
    """δ = ½‖f̃ − f‖², what pruning changed, exactly.

    Args:
        pruned: of the pruned student, *with the original student in the teacher's place*.

    Returns:
        δ, at least 0.
    """
    return generalisation_error(pruned)


def error_range(before: float, changed: float) -> tuple[float, float]:
    """The least and the largest error that a pruned student can have (triangle inequality).

    Args:
        before: ε of the student as it was trained.
        changed: δ, its distortion.

    Returns:
        (√ε − √δ)² and (√ε + √δ)².

    Raises:
        TheoryError: one of them is negative.

    Example:
        >>> error_range(1.0, 4.0)
        (1.0, 9.0)
    """
    if not (before >= 0 and changed >= 0):
        raise TheoryError(f"An error of {before} and a distortion of {changed}: both are at least 0.")
    low, high = np.sqrt(before) - np.sqrt(changed), np.sqrt(before) + np.sqrt(changed)
    return float(low**2), float(high**2)


def node_distortion_bound(order: OrderParameters, units: Units | list[int]) -> float:
    """The most that keeping these units alone can change; fusing, the best readout, changes no more.

    Args:
        order: the student as it was trained.
        units: (k,), the units to keep.

    Returns:
        ½ (Σ_{j removed} |v_j| √E[g_j²])².
    """
    order.keep(units)  # says what is wrong with them
    removed = np.setdiff1d(np.arange(order.units), units)
    power = np.sqrt(np.diag(grams(order).student))
    return float(0.5 * (np.abs(order.readout) * power)[removed].sum() ** 2)


def edge_distortion_bound(order: OrderParameters, lost: Array) -> float:
    """The most that pruning edges can change: ‖g(λ) − g(λ̃)‖ ≤ L ‖λ − λ̃‖ for every unit.

    Args:
        order: the student as it was trained.
        lost: (K,), D_i = Σ_{a removed} w_ia² / d; (1 − p) Q_ii in expectation where each edge stays with p.

    Returns:
        ½ L² (Σ_i |v_i| √D_i)²; with expected D_i it bounds the expected distortion (Jensen).

    Raises:
        TheoryError: not one number a unit, or a negative one.
    """
    if lost.shape != (order.units,) or not (lost >= 0).all():
        raise TheoryError(
            f"lost has shape {lost.shape} and least value {lost.min():.3g}: one number, at least 0, a unit."
        )
    return float(0.5 * order.activation.lipschitz**2 * (np.abs(order.readout) @ np.sqrt(lost)) ** 2)


def volume_distortion_bound(order: OrderParameters, kept: int) -> float:
    """The most that a fused k-DPP on the Gram matrix changes in expectation.

    Args:
        order: the student as it was trained.
        kept: k.

    Returns:
        ½ ‖v‖² Σ_{l>k} λ_l; 0 where k units span all of them.

    Raises:
        TheoryError: k is out of range.
    """
    checked_kept(kept, order.units)
    values = np.linalg.eigvalsh(grams(order).student)[::-1]
    tail = np.maximum(values[kept:], 0.0).sum()
    return float(0.5 * (order.readout @ order.readout) * tail)
