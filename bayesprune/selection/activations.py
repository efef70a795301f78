"""The activations of every unit as one vector: what makes units alike or different."""

from __future__ import annotations

from torch import Tensor

from bayesprune.rows import Inputs
from bayesprune.selection.subject import Subject
from bayesprune.structure.graph import readings


def unit_vectors(subject: Subject, rows: Inputs) -> dict[str, Tensor]:
    """What the readers of each unit see of it, over all rows.

    Args:
        subject: what is pruned.
        rows: (rows, ...), inputs.

    Returns:
        group → (group.size, numbers), as ``structure.graph.readings.unit_vectors`` has them.
    """
    return readings.unit_vectors(subject.network, subject.alive, rows)
