"""Magnitude: units whose own weights are small go first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesprune.errors import SelectionError
from bayesprune.selection.masks import Scores
from bayesprune.selection.rule import Scored
from bayesprune.selection.subject import Subject
from bayesprune.structure.groups import WHOLE


@dataclass(frozen=True)
class Magnitude(Scored):
    r"""The norm of the weights that make a unit.

    .. math:: s_u = \Big(\sum_{w \in \mathrm{rows}(u)} |w|^p\Big)^{1/p}

    over all weights whose rows are the unit's (several where producers are added up; biases are left out).
    For units that no weight makes, inputs and flattened features, the weights that read them. p = 1 for
    filters is Li, Kadav, Durdanovic, Samet & Graf (2017), Pruning Filters for Efficient ConvNets.

    Attributes:
        p: which norm, above 0.
    """

    p: float = 2.0

    def scores(self, subject: Subject, seed: int = 0) -> Scores:
        """group → (size,), norms; sections have none, and stay."""
        if not (isinstance(self.p, int | float) and 0 < self.p < math.inf):
            raise SelectionError(f"Magnitude(p={self.p!r}): the norm's exponent must be above 0.")
        made = summed(subject, reads=False, power=self.p)
        read = summed(subject, reads=True, power=self.p)
        return {name: total ** (1 / self.p) for name, total in {**read, **made}.items()}


def summed(subject: Subject, reads: bool, power: float) -> Scores:
    """Sums of powers of weights over the rows that make a unit, or the columns that read it.

    Args:
        subject: what is pruned.
        reads: the columns instead of the rows.
        power: of the absolute values.

    Returns:
        group → (size,), for the groups that have such weights.
    """
    powers = {name: weight.double().cpu().abs().pow(power) for name, weight in subject.weights().items()}
    return columns_of(subject, powers, reads)


def summed_scaled(subject: Subject, scale_of: Callable[[str], float]) -> Scores:
    """Sums of (w / s)² over the weights that read a unit.

    Args:
        subject: what is pruned.
        scale_of: weight → s.

    Returns:
        group → (size,), for the groups that weights read.
    """
    scaled = {n: (w.double().cpu() / scale_of(n)).square() for n, w in subject.weights().items()}
    return columns_of(subject, scaled)


def columns_of(subject: Subject, values: Mapping[str, Tensor], reads: bool = True) -> Scores:
    """Sums of numbers of weights' shapes over the columns that read a unit, or the rows that make it.

    Args:
        subject: what is pruned.
        values: weight → numbers of its shape.
        reads: the columns; else the rows.

    Returns:
        group → (size,), for the groups that have such weights.
    """
    totals: Scores = {}
    sizes = {group.name: group.size for group in subject.groups}
    for slot in subject.slots:
        number = values.get(slot.tensor)
        if number is None or slot.dim == WHOLE or slot.reads != reads:
            continue
        others = [dim for dim in range(number.ndim) if dim != slot.dim]
        total = totals.setdefault(slot.group, torch.zeros(sizes[slot.group], dtype=torch.float64))
        own = slot.unit_ids >= 0
        total.index_add_(0, slot.unit_ids[own], number.sum(others)[own])
    return totals
