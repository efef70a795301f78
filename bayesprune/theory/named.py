"""Activation functions by name."""

from __future__ import annotations

from bayesprune.errors import TheoryError
from bayesprune.theory.activation import Activation
from bayesprune.theory.erf import ERF
from bayesprune.theory.relu import RELU

ACTIVATIONS = {activation.name: activation for activation in (ERF, RELU)}


def activation_named(name: str | Activation) -> Activation:
    """An activation function with its Gaussian integrals.

    Args:
        name: "erf" or "relu"; an :class:`Activation` of your own is handed back.

    Returns:
        The activation.

    Raises:
        TheoryError: there is none of this name.

    Example:
        >>> activation_named("erf").lipschitz == (2 / 3.141592653589793) ** 0.5
        True
    """
    if isinstance(name, Activation):
        return name
    if name not in ACTIVATIONS:
        known = " or ".join(repr(known) for known in ACTIVATIONS)
        raise TheoryError(
            f"Activation {name!r} has no closed forms here: use {known}, or give an Activation with its own."
        )
    return ACTIVATIONS[name]
