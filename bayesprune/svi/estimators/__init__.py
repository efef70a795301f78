"""Estimators of the gates' gradient: one contract, one file each."""

from bayesprune.errors import SettingsError
from bayesprune.svi.estimators.concrete import Concrete
from bayesprune.svi.estimators.enumeration import Enumeration, all_configurations
from bayesprune.svi.estimators.problem import Estimate, Estimator, GateProblem
from bayesprune.svi.estimators.reinforce import ARM, Reinforce
from bayesprune.svi.estimators.straight_through import (
    CurvedStraightThrough,
    SecondOrderStraightThrough,
    StraightThrough,
)

ESTIMATORS: dict[str, Estimator] = {
    "straight_through": StraightThrough(),
    "second_order": SecondOrderStraightThrough(),
    "curved": CurvedStraightThrough(),
    "concrete": Concrete(),
    "arm": ARM(),
    "reinforce": Reinforce(),
    "enumeration": Enumeration(),
}
"""Names for ``Recipe(estimator=...)``."""


def find_estimator(estimator: str | Estimator) -> Estimator:
    """An estimator by name, or as it is.

    Args:
        estimator: a name of ``ESTIMATORS``, or an estimator.

    Returns:
        The estimator.

    Raises:
        SettingsError: an unknown name.
    """
    if not isinstance(estimator, str):
        if not callable(estimator):
            raise SettingsError(
                f"estimator={estimator!r} is none: give a name, {', '.join(ESTIMATORS)}, or an Estimator."
            )
        return estimator
    if estimator not in ESTIMATORS:
        raise SettingsError(f"estimator={estimator!r} is not known; there are {', '.join(ESTIMATORS)}.")
    return ESTIMATORS[estimator]


__all__ = [
    "ARM",
    "ESTIMATORS",
    "Concrete",
    "CurvedStraightThrough",
    "Enumeration",
    "Estimate",
    "Estimator",
    "GateProblem",
    "Reinforce",
    "SecondOrderStraightThrough",
    "StraightThrough",
    "all_configurations",
    "find_estimator",
]
