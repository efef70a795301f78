"""Which units of a student to keep: at random, by importance, or by a determinantal point process."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np

from bayesprune.errors import TheoryError
from bayesprune.selection import KDPP
from bayesprune.theory.activation import Array, Units
from bayesprune.theory.kernels import checked_kept, node_kernel, spectrum
from bayesprune.theory.order import OrderParameters

MOST_SUBSETS = 200_000


def random_nodes(order: OrderParameters, kept: int, rng: np.random.Generator) -> Units:
    """k units, drawn uniformly without replacement.

    Args:
        order: the student.
        kept: k.
        rng: of the draw.

    Returns:
        (k,), ascending.

    Raises:
        TheoryError: k is out of range.
    """
    return np.sort(rng.choice(order.units, checked_kept(kept, order.units), replace=False))


def important_nodes(order: OrderParameters, kept: int) -> Units:
    """The k units with the largest readouts |v_i|.

    The "onorm" importance of He et al., "Reshaping deep neural network for fast decoding by node-pruning"
    (ICASSP 2014): the mean magnitude of the weights that leave a unit, here a single one.

    Args:
        order: the student.
        kept: k; of equals the first stay.

    Returns:
        (k,), ascending.

    Raises:
        TheoryError: k is out of range.

    Example:
        >>> eye = np.eye(3)
        >>> important_nodes(OrderParameters(eye, eye, eye, np.array([1.0, -3.0, 2.0]), np.ones(3)), 2)
        array([1, 2])
    """
    checked_kept(kept, order.units)
    return np.sort(np.argsort(-np.abs(order.readout), kind="stable")[:kept])


def dpp_nodes(order: OrderParameters, kept: int, rng: np.random.Generator, kernel: str = "gram") -> Units:
    """k units, drawn by a k-DPP: diverse ones.

    Args:
        order: the student.
        kept: k.
        rng: of the draw.
        kernel: a kind of :func:`bayesprune.theory.node_kernel`.

    Returns:
        (k,), ascending.

    Raises:
        TheoryError: k or the kind is out of range, or the kernel's rank is under k.
    """
    found = node_kernel(order, kernel)
    spectrum(found, kept)  # says what is wrong
    return KDPP.of(found).sample(kept, rng).astype(np.intp)


def subset_law(units: int, kept: int, kernel: Array | None = None) -> tuple[Units, Array]:
    """Every subset of k units and its probability, by enumeration.

    What has no closed form, such as the error after random pruning and fusing, is summed over it exactly.

    Args:
        units: K.
        kept: k.
        kernel: (K, K) of a k-DPP; None draws uniformly.

    Returns:
        (subsets, k) and (subsets,), which sums to 1.

    Raises:
        TheoryError: k is out of range, there are more than 200,000 subsets, or the kernel's rank is under k.

    Example:
        >>> subsets, probability = subset_law(3, 2, np.diag([1.0, 2.0, 3.0]))
        >>> (probability * 11).round(9)
        array([2., 3., 6.])
    """
    checked_kept(kept, units)
    if comb(units, kept) > MOST_SUBSETS:
        raise TheoryError(
            f"{units} units have {comb(units, kept):,} subsets of {kept}, over {MOST_SUBSETS:,}: draw some "
            "instead."
        )
    subsets = np.array(list(combinations(range(units), kept)), np.intp)
    if kernel is None:
        return subsets, np.full(len(subsets), 1 / len(subsets))
    if kernel.shape != (units, units):
        raise TheoryError(f"The kernel has shape {kernel.shape}: give ({units}, {units}).")
    spectrum(kernel, kept)  # says what is wrong
    minors = np.maximum(
        np.linalg.det(kernel[subsets[:, :, None], subsets[:, None, :]] / np.abs(kernel).max()), 0.0
    )
    return subsets, minors / minors.sum()
