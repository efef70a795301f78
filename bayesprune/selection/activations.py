"""The activations of every unit as one vector: what makes units alike or different."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesprune.rows import Inputs
from bayesprune.selection.readings import Reading, readings
from bayesprune.selection.subject import Subject


def unit_vectors(subject: Subject, rows: Inputs) -> dict[str, Tensor]:
    """What the readers of each unit see of it, over all rows.

    Args:
        subject: what is pruned.
        rows: (rows, ...), inputs.

    Returns:
        group → (group.size, numbers): row after row; of a filter, position after position. They are taken
        where all units of the group are read together; where no reader sees all of them, readers stand
        side by side, with zeros for those that do not see a unit. Zeros for removed units. Sections have
        none.
    """
    found = readings(subject.network, rows)
    vectors: dict[str, Tensor] = {}
    for group in subject.groups:
        alive = subject.alive[group.name]
        parts = []
        for reading in found:
            if group.name in reading.units:
                part, seen = _vectors(reading, group.name, group.size)
                parts.append(part)
                if bool(seen[alive].all()):
                    parts = [part]
                    break
        if parts:
            vectors[group.name] = torch.cat(parts, 1)
    return vectors


def _vectors(reading: Reading, group: str, size: int) -> tuple[Tensor, Tensor]:
    """(size, most columns of a unit · samples), and (size,) whether a unit is there at all."""
    ids, samples = reading.units[group], reading.values.shape[1]
    own = ids >= 0
    counts = torch.bincount(ids[own], minlength=size)
    stacked = reading.values.new_zeros(size, int(counts.max()), samples)
    filled = torch.zeros(size, dtype=torch.long)
    for column in own.nonzero().squeeze(1).tolist():
        unit = int(ids[column])
        stacked[unit, filled[unit]] = reading.values[column]
        filled[unit] += 1
    return stacked.flatten(1), counts > 0
