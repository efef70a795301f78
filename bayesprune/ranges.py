"""Whole numbers that a user gives, and the ranges that they must lie in."""

from __future__ import annotations

import operator
from typing import Any

from bayesprune.errors import BayespruneError

SEEDS = 2**32
"""Seeds lie below this: NumPy takes no larger one."""


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, NumPy's included; True and False are none."""
    if isinstance(value, bool):
        return False
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def is_seed(value: Any) -> bool:
    """Whether a value seeds every generator."""
    return is_whole(value) and 0 <= value < SEEDS


SEED_RULE = f"must be a whole number in 0 … {SEEDS - 1}"
"""What is said of a seed that is none."""


def check_seed(value: Any, error: type[BayespruneError]) -> None:
    """A seed must be one.

    Args:
        value: what the user gave.
        error: raised if it is none.
    """
    if not is_seed(value):
        raise error(f"seed={value!r} {SEED_RULE}.")
