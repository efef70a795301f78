"""What a training does when: warm-up, selection, compact; prices ramp up, learning rates restart."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bayesprune.svi.settings import Recipe


@dataclass(frozen=True)
class Schedule:
    """The recipe's shares of the training as steps.

    Args:
        recipe: the settings.
        steps: training steps in all.
    """

    recipe: Recipe
    steps: int

    @property
    def warmup(self) -> int:
        """Steps before gates move."""
        return round(self.recipe.warmup * self.steps)

    @property
    def decide(self) -> int:
        """The step at which gates are decided at the latest."""
        return round(self.recipe.decide * self.steps)

    def prior_weight(self, step: int) -> float:
        """Factor on the gates' prior: 0 in the warm-up, then up to 1 in a straight line.

        Example:
            >>> schedule = Schedule(Recipe(warmup=0.1, ramp=0.2, decide=0.5), steps=100)
            >>> [round(schedule.prior_weight(step), 2) for step in (0, 10, 20, 30, 60)]
            [0.0, 0.0, 0.5, 1.0, 1.0]
        """
        ramp = self.recipe.ramp * self.steps
        if step < self.warmup:
            return 0.0
        return min(1.0, (step - self.warmup) / ramp) if ramp else 1.0

    def learning_rate(self, step: int, decided_at: int | None) -> float:
        """Adam's learning rate: constant up to the decision, then a cosine of its own down to its floor.

        Args:
            step: now.
            decided_at: the step at which gates were decided; None before.

        Returns:
            The learning rate.
        """
        if decided_at is None:
            return self.recipe.learning_rate
        done = (step - decided_at) / max(self.steps - decided_at, 1)
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return self.recipe.compact_learning_rate * max(self.recipe.compact_floor, cosine)

    def averages(self, step: int, decided_at: int | None) -> bool:
        """Whether this step's weights enter the average."""
        if decided_at is None or not self.recipe.averaging:
            return False
        return step >= self.steps - self.recipe.averaging * (self.steps - decided_at)
