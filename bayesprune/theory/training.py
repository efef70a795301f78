"""How a student is trained: the settings that the simulation and the equations share."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bayesprune.errors import TheoryError


@dataclass(frozen=True)
class Training:
    """On-line stochastic gradient descent: one fresh input a step, never seen again.

    Args:
        learning_rate: η of the first layer; a step is η / √d times the gradient of the squared half error.
        readout_rate: η_v of the second layer, a step being η_v / d; 0 leaves v as it is; None takes η.
        noise: standard deviation σ of the teacher's output noise.

    Raises:
        TheoryError: a number is negative or not finite.
    """

    learning_rate: float = 0.5
    readout_rate: float | None = None
    noise: float = 0.0

    def __post_init__(self) -> None:
        values = {"learning_rate": self.learning_rate, "readout_rate": self.of_readout, "noise": self.noise}
        wrong = [f"{name}={value}" for name, value in values.items() if not (0 <= value < math.inf)]
        if wrong:
            raise TheoryError(f"Training with {', '.join(wrong)}: give finite numbers, at least 0.")

    @property
    def of_readout(self) -> float:
        """η_v, with None resolved."""
        return self.learning_rate if self.readout_rate is None else self.readout_rate
