"""Checks that the priors share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayesprune.errors import PriorError
from bayesprune.structure.groups import Group


def positive(value: object) -> bool:
    """Whether a setting is a number, greater than zero and finite."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def as_real(numbers: Tensor) -> Tensor:
    """Whole numbers and booleans as floating point: what is computed from them would be cut to whole
    numbers."""
    return numbers if numbers.is_floating_point() else numbers.to(torch.get_default_dtype())


def checked(group: Group, inclusion_prob: Tensor) -> Tensor:
    """Inclusion probabilities in double precision: sums of thousands of large prices stay exact.

    Args:
        group: the group that they belong to.
        inclusion_prob: (group.size,), probability that each original unit is kept; 0 for removed ones.

    Returns:
        (group.size,), float64, attached to the graph of ``inclusion_prob``.

    Raises:
        PriorError: the shape is not (group.size,): a prior always sees the group as it was at the start.
    """
    if inclusion_prob.shape != (group.size,):
        raise PriorError(
            f"Group '{group.name}' has {group.size} units, and got inclusion probabilities of shape "
            f"{tuple(inclusion_prob.shape)}: pass one for each original unit, 0 for removed ones."
        )
    return inclusion_prob.double()
