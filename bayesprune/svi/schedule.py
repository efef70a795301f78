r"""What a training does when: warm-up, selection, compact; prices ramp up, learning rates restart.

Every quantity that a training accumulates over its steps is given for the whole training, and shared out
among as many steps as there are, so that a training's length alone neither empties a network nor keeps all
of it. Sizes still drift with it: on the digits, at the same prices and 100 epochs, 784-100 became 127-18 in
300 steps, 84-16 in 4,400 and 73-13 in 28,700 (``python benchmarks/steps.py``).

- *Gates.* A unit without evidence falls by η in a gate step, so over S steps with one gate step in k it could
  fall by η S / k log-odds. That is held at 468: η = 468 k / S. Below 300 steps η falls again, as (S / 300)³:
  weights learn too little there for evidence, and a fit says so where gates cannot cross (``ClockWarning``).
- *Their momentum* remembers about k / (1 − β) steps, which is held at a share of the training, 200 of 18,720.
- *Weights.* Adam moves a weight by at most about its rate in a step, so over the training by rate · S. Short
  trainings need that to be at least 11, or weights have not come to where the evidence for units is seen, and
  useless weights have not decayed: the rate is max(2·10⁻³, 11 / S), and at most 10⁻²: deep
  networks take no more.

At 18,720 steps (LeNet-5 on MNIST: 40 epochs of 468) these are η = 0.1, k = 4, β = 0.98, rate 2·10⁻³, where
they were tuned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bayesprune.svi.settings import GateSteps, Recipe

TUNED_STEPS = 18_720
"""The number of steps at which the defaults of ``GateSteps`` were tuned."""
FEW_STEPS = 4_400
"""From here on gates move every fourth step; below, more often, down to every step."""
FEWEST_STEPS = 300
"""Below, weights learn too little for evidence: gates slow down again, so that no unit goes unheard."""
LEAST_TRAVEL = 11.0
"""How far Adam could carry a weight over the whole training: learning rate × steps."""
LEARNING_RATE, HIGHEST_RATE = 2e-3, 1e-2
CONTINUOUS_TRAVEL, HIGHEST_CONTINUOUS_RATE = 60.0, 0.05
"""How far Adam could carry the parameters of a continuous gate, whose noise is to grow a hundredfold."""
LOOKS = 44
"""At least so many times a training looks for dead units."""


@dataclass(frozen=True)
class Schedule:
    """The recipe's shares of the training as steps.

    Args:
        recipe: the settings.
        steps: training steps in all, one at least.
    """

    recipe: Recipe
    steps: int

    @property
    def gates(self) -> GateSteps:
        """The recipe's gate optimiser; by default the tuned one, its time scaled to the number of steps.

        Example:
            >>> Schedule(Recipe(), 18_720).gates == GateSteps()
            True
            >>> Schedule(Recipe(), 1_100).gates
            GateSteps(learning_rate=0.425..., momentum=0.914..., clip=1.701..., every=1, bound=8.0)
        """
        if self.recipe.gates is not None:
            return self.recipe.gates
        tuned = GateSteps()
        every = max(1, min(tuned.every, round(tuned.every * self.steps / FEW_STEPS)))
        pace = TUNED_STEPS / self.steps * every / tuned.every  # tuned gate steps in one of these
        heard = min(1.0, self.steps / FEWEST_STEPS) ** 4
        return GateSteps(
            learning_rate=tuned.learning_rate * pace * heard,
            momentum=max(0.0, 1 - (1 - tuned.momentum) * pace),
            clip=tuned.clip * pace * heard,
            every=every,
            bound=tuned.bound,
        )

    @property
    def look_every(self) -> int:
        """Steps from one look for dead units to the next."""
        return self.recipe.shrink.every or max(1, min(100, round(self.steps / LOOKS)))

    @property
    def rate(self) -> float:
        """Adam's learning rate up to the decision."""
        if self.recipe.learning_rate is not None:
            return self.recipe.learning_rate
        return min(HIGHEST_RATE, max(LEARNING_RATE, LEAST_TRAVEL / self.steps))

    @property
    def compact_rate(self) -> float:
        """Adam's learning rate right after the decision."""
        given = self.recipe.compact_learning_rate
        return self.rate if given is None else given

    @property
    def continuous_rate(self) -> float:
        """Learning rate of continuous gates, by an Adam of their own."""
        return min(HIGHEST_CONTINUOUS_RATE, max(self.rate, CONTINUOUS_TRAVEL / self.steps))

    @property
    def warmup(self) -> int:
        """Steps before gates move."""
        return round(self.recipe.warmup * self.steps)

    @property
    def frozen(self) -> int:
        """Steps in which gates alone move."""
        return round(self.recipe.frozen * self.steps)

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

    def weights_weight(self, step: int) -> float:
        """Factor on the divergence of weights that have a posterior: from 0 to the temperature, straight.

        Example:
            >>> schedule = Schedule(Recipe(weights_ramp=0.2), steps=100)
            >>> [schedule.weights_weight(step) for step in (0, 10, 20, 60)]
            [0.0, 0.5, 1.0, 1.0]
        """
        ramp = self.recipe.weights_ramp * self.steps
        return self.recipe.temperature * (min(1.0, step / ramp) if ramp else 1.0)

    def learning_rate(self, step: int, decided_at: int | None) -> float:
        """Adam's learning rate: constant up to the decision, then a cosine of its own down to its floor.

        Args:
            step: now.
            decided_at: the step at which gates were decided; None before.

        Returns:
            The learning rate.
        """
        if decided_at is None:
            return self.rate
        done = (step - decided_at) / max(self.steps - decided_at, 1)
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return self.compact_rate * max(self.recipe.compact_floor, cosine)

    def averages(self, step: int, decided_at: int | None) -> bool:
        """Whether this step's weights enter the average."""
        if decided_at is None or not self.recipe.averaging:
            return False
        return step >= self.steps - self.recipe.averaging * (self.steps - decided_at)
