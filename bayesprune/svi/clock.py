"""Whether evidence decides a mask, or the clock: what a schedule can do at all, and what it has done."""

from __future__ import annotations

import math
import warnings

from bayesprune.callers import level
from bayesprune.errors import ClockWarning
from bayesprune.gated import GatedModel
from bayesprune.svi.result import FitResult
from bayesprune.svi.schedule import Schedule

REACH = 0.05
"""q(z = 1) that a unit without evidence has to come under before gates are decided."""
MOST_STEPS = 2**24


def without_evidence(schedule: Schedule, inclusion_prob: float) -> float:
    """q(z = 1), at the decision, of a unit that saves nothing: its price alone pulls it down.

    v ← β v + (1 − β) w, ρ ← ρ − min(η v, clip), in units of the price, with w the ramped weight of the prior.

    Args:
        schedule: of the training.
        inclusion_prob: q(z = 1) at the start, in (0, 1).

    Returns:
        In (0, 1); no further down than where the unit would be removed.

    Example:
        >>> from bayesprune.svi import GateSteps, Recipe
        >>> slow = Recipe(gates=GateSteps(), learning_rate=2e-3, decide=0.5)
        >>> [round(without_evidence(Schedule(slow, steps), 0.9), 2) for steps in (330, 660, 1000)]
        [0.83, 0.55, 0.16]
    """
    gates, velocity = schedule.gates, 0.0
    log_odds = math.log(inclusion_prob / (1 - inclusion_prob))
    below = schedule.recipe.shrink.below
    removed = math.log(below / (1 - below))
    first = -(-schedule.warmup // gates.every) * gates.every
    for step in range(first, schedule.decide, gates.every):
        velocity = gates.momentum * velocity + (1 - gates.momentum) * schedule.prior_weight(step)
        log_odds -= min(gates.learning_rate * velocity, gates.clip)
        if log_odds <= removed:
            return below
    return 1 / (1 + math.exp(-log_odds))


def warn_before(gated: GatedModel, schedule: Schedule) -> None:
    """Say so where no evidence, or its absence, could decide a gate in so few steps.

    Args:
        gated: the model, at its start.
        schedule: of the training.

    Warns:
        ClockWarning: a unit without evidence would stay above 0.05; with the steps that it would take.
    """
    switches = gated.alive.clone()
    for name in gated.continuous.priors:
        switches[gated.slices()[name]] = False
    if not bool(switches.any()):
        return
    start = float(gated.inclusion_prob().detach()[switches].max())
    start = min(start, 1 - 1e-6)
    end = without_evidence(schedule, start)
    if end <= REACH:
        return
    needed = schedule
    while without_evidence(needed, start) > REACH and needed.steps < MOST_STEPS:
        needed = Schedule(schedule.recipe, 2 * needed.steps)
    warnings.warn(
        f"In {schedule.steps} steps a unit without any evidence only goes from q(z = 1) = {start:.2g} to "
        f"{end:.2g}, whatever its price: the clock would decide the mask, not the evidence. Take about "
        f"{needed.steps} steps (more epochs, smaller batches), a later Recipe(decide=...), or leave "
        "Recipe(gates=...) out, whose pace then follows the number of steps.",
        ClockWarning,
        stacklevel=level(),
    )


def warn_after(result: FitResult) -> None:
    """Say so where much of the mask was decided because time was up.

    Args:
        result: of a fit.

    Warns:
        ClockWarning: more than 0.05 of the gates were put at the nearer vertex.
    """
    if result.decided_by_clock:
        warnings.warn(
            f"{result.rounded} of {len(result.gated.alive)} gates were undecided when the selection's time "
            f"was up (epoch {result.decided_at} of {len(result.history)}), and were put at the nearer "
            "vertex: by the clock, not by evidence. Train for more epochs, decide later "
            "(Recipe(decide=...)), or look at the prices of the groups concerned.",
            ClockWarning,
            stacklevel=level(),
        )
