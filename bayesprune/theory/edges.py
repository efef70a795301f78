"""Edge pruning: masks over the first layer, and how many edges cost as much as some units."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bayesprune.errors import TheoryError
from bayesprune.theory.committee import Committee

Mask = NDArray[np.bool_]


def equal_edges(units: int, inputs: int, kept: int) -> int:
    """How many edges a student may keep to cost as much as one of fewer units.

    k whole units have k (d + 1) parameters, weights and readouts. An edge-pruned student keeps the readouts
    of all K units, so that k (d + 1) − K edges are left for the same sum.

    Args:
        units: K.
        inputs: d.
        kept: k, units of the node-pruned student.

    Returns:
        The number of edges, from 1 to K d.

    Raises:
        TheoryError: k is out of range, or the K readouts alone cost more than k units.

    Example:
        >>> equal_edges(units=6, inputs=500, kept=2)
        996
    """
    edges = kept * (inputs + 1) - units
    if not 1 <= kept <= units or edges < 1:
        raise TheoryError(
            f"{kept} of {units} units on {inputs} inputs leave {edges} edges after {units} readouts: keep "
            f"from 1 to {units} units, on more inputs."
        )
    return edges


def random_edges(student: Committee, edges: int, rng: np.random.Generator) -> Mask:
    """A mask that keeps edges drawn uniformly without replacement from all of the first layer.

    Args:
        student: of K units on d inputs.
        edges: how many to keep.
        rng: of the draw.

    Returns:
        (K, d), True where kept.

    Raises:
        TheoryError: the number is out of range.
    """
    mask = np.zeros(student.weights.size, bool)
    mask[rng.choice(mask.size, checked_edges(edges, student), replace=False)] = True
    return mask.reshape(student.weights.shape)


def magnitude_edges(student: Committee, edges: int) -> Mask:
    """A mask that keeps the edges of largest |w| in the whole first layer.

    Args:
        student: of K units on d inputs.
        edges: how many to keep; of equals, those of the later units go first.

    Returns:
        (K, d), True where kept.

    Raises:
        TheoryError: the number is out of range.
    """
    order = np.argsort(-np.abs(student.weights).ravel(), kind="stable")
    mask = np.zeros(student.weights.size, bool)
    mask[order[: checked_edges(edges, student)]] = True
    return mask.reshape(student.weights.shape)


def masked(student: Committee, mask: Mask) -> Committee:
    """The student with the masked edges put at zero.

    Its order parameters, and so its error, follow exactly from :func:`order_parameters`.

    Args:
        student: of K units on d inputs.
        mask: (K, d), True where an edge is kept.

    Returns:
        The pruned student.

    Raises:
        TheoryError: the mask has another shape.
    """
    if mask.shape != student.weights.shape:
        raise TheoryError(
            f"The mask has shape {mask.shape}: give {student.weights.shape}, that of the weights."
        )
    return Committee(student.weights * mask, student.readout, student.activation)


def checked_edges(edges: int, student: Committee) -> int:
    """How many edges are to stay.

    Raises:
        TheoryError: no whole number, or out of range.
    """
    if int(edges) != edges or not 1 <= edges <= student.weights.size:
        raise TheoryError(
            f"Cannot keep {edges} of {student.weights.size} edges: give a whole number from 1 to that."
        )
    return int(edges)
