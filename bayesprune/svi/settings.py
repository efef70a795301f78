"""The settings of an inference, as values; the shipped programs were measured with the defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from bayesprune.errors import SettingsError
from bayesprune.ranges import is_whole
from bayesprune.svi.estimators import Estimator


@dataclass(frozen=True)
class GateSteps:
    """Mirror descent on the gates' log-odds, as it was tuned for a training of 18,720 steps.

    One that is given to a ``Recipe`` is taken as it is. A recipe without one scales these numbers to the
    steps of its training: see ``Schedule.gates``.

    Args:
        learning_rate: by how much the log-odds of a unit without evidence fall in a gate step.
        momentum: weight of the past gradients, in [0, 1).
        clip: the largest change of a log-odds in one step.
        every: training steps from one gate step to the next.
        bound: log-odds stay within ± this.
    """

    learning_rate: float = 0.1
    momentum: float = 0.98
    clip: float = 0.4
    every: int = 4
    bound: float = 8.0


@dataclass(frozen=True)
class Shrink:
    """When dead units are removed.

    Args:
        below: a unit is dead when its inclusion probability is under this.
        every: training steps from one look to the next; None for 44 looks in a training, but at least one
            every 100 steps.
        least: units that a group keeps whatever the prior says.
    """

    below: float = 0.01
    every: int | None = None
    least: int = 1


@dataclass(frozen=True)
class Moves:
    """Moves of units at the decision (``bayesprune.svi.moves``).

    Args:
        correlation: in absolute value, over the training rows, from which on two units of a group may stand
            for each other; it says which exchanges are asked, and evidence what is done. At 0 any two may.
        single: whether each unit, correlated or not, may be removed or come back by itself, so that one
            whose weights began on the wrong side of zero is not lost. Asked where there is time to ask about
            every unit, and then no unit goes before the decision.
        masks: whose evidence is asked at most; None for as many as take a matter of seconds: masks × weights
            × rows up to 100,000, fewer where a row has more than ten outputs. Larger problems are left as
            they are.
    """

    correlation: float = 0.8
    single: bool = True
    masks: int | None = None


STARTS = ("scratch", "trained")
TRAINED: dict[str, Any] = {"warmup": 0.0, "ramp": 0.25, "decide": 0.5}
"""What a recipe for trained weights leaves out is this: there is nothing to warm up."""


@dataclass(frozen=True)
class Recipe:
    """How a gated model is fitted; all times are shares of the whole training.

    Training has three parts. *Warm-up*: weights learn under gates that are drawn but do not move.
    *Selection*: gates move, their prior's weight ramps up from 0 to 1, dead units are removed. *Compact*:
    every gate is decided, and the small network's weights are fitted under a fresh learning-rate schedule.

    What is left out follows the number of steps of the training (``Schedule``, which says how far sizes still
    hang on it). What is given is taken as it is.

    Args:
        estimator: of the gates' gradient, a name or an ``Estimator``.
        gates: the gate optimiser; None for one that fits the number of steps.
        shrink: when dead units are removed.
        learning_rate: of Adam, up to the decision; None for one that fits the number of steps.
        compact_learning_rate: of Adam after it, decaying along a cosine; None for that before it.
        compact_floor: share of ``compact_learning_rate`` at which the cosine levels off. Above 0 it wants
            ``averaging``: weights that go on moving are averaged (Izmailov et al. 2018, SWA).
        warmup: share of the training before gates move.
        ramp: share of the training over which the prior's weight rises from 0 to 1 after the warm-up.
        decide: share of the training after which every gate is put at the nearer vertex.
        decides: whether it is. If not, gates go on moving to the end of the training, dead units go on being
            removed, and from ``decide`` on the learning rate falls all the same: what is left is a posterior
            over masks, under whose draws the weights were learnt, and ``bp.prune`` rounds it.
        compact_weights: ``"points"``, or ``"normal"`` to give the weights a Gaussian posterior in the compact
            part. None for a posterior where noise is learnt from fewer than 10 rows a weight that is left,
            since points would take the noise for a part of what they fit (``few_rows``), else points. Where
            noise is learnt from fewer rows than there are weights, and points were not asked for, weights
            have a posterior from the first step.
        weights_ramp: share of the training, from its first step, over which the divergence of weights that
            have a posterior rises from 0 to its whole weight. With a prior that is learnt (``relevance``)
            weights that have seen nothing yet would have no prior but zero without it (Sønderby et al. 2016,
            arXiv 1602.02282, on warm-up).
        temperature: what that divergence is multiplied by. At 1 the posterior is this model's; below it is a
            *cold* posterior (Wenzel et al. 2020, arXiv 2002.02405), which no prior of the model has. The ELBO
            that is reported stays that of temperature 1.
        compact_scale: factor on the weights' prior standard deviation in the compact part.
        averaging: share of the compact part, at its end, over which weights are averaged; the statistics of
            batch normalisation are then taken afresh.
        start: ``"scratch"``, or ``"trained"`` where the network has learnt already: gates start open, whole
            sections are judged by what they save when gates are decided, and statistics of batch
            normalisation are taken afresh at the end. ``Recipe.trained`` sets the schedule too.
        frozen: share of the training, at most ``decide``, in which weights stand still and gates alone move.
        moves: of units, at the decision: each removed or added, or exchanged for one that it is correlated
            to, where the evidence with the weights integrated out is more. By default tried where that takes
            a matter of seconds; None for never. A unit that dies is then closed at once, and removed at the
            decision. What was done, or why nothing, is in ``result.decision``.
    """

    estimator: str | Estimator = "curved"
    gates: GateSteps | None = None
    shrink: Shrink = field(default_factory=Shrink)
    learning_rate: float | None = None
    compact_learning_rate: float | None = None
    compact_floor: float = 0.0
    warmup: float = 0.02
    ramp: float = 0.35
    decide: float = 0.7
    decides: bool = True
    compact_weights: str | None = None
    weights_ramp: float = 0.0
    temperature: float = 1.0
    compact_scale: float = 1.0
    averaging: float = 0.0
    start: str = "scratch"
    frozen: float = 0.0
    moves: Moves | None = field(default_factory=Moves)

    @classmethod
    def trained(cls, **settings: Any) -> Recipe:
        """A recipe for weights that have learnt already.

        Args:
            settings: what differs from it. With ``frozen``, gates ramp up over half of that share and are
                decided at its end, and what is left of the training is fine-tuning.

        Raises:
            SettingsError: a setting out of range, or of another name.

        Example:
            >>> Recipe.trained().warmup, Recipe.trained(frozen=0.25).decide
            (0.0, 0.25)
        """
        names = {item.name for item in fields(cls)}
        unknown = sorted(set(settings) - names)
        if unknown:
            raise SettingsError(
                f"Recipe.trained has no setting {unknown[0]!r}: it takes those of Recipe, "
                f"{', '.join(sorted(names))}."
            )
        chosen = {"start": "trained", **TRAINED}
        frozen = settings.get("frozen")
        if isinstance(frozen, int | float) and frozen:
            chosen |= {"decide": frozen, "ramp": frozen / 2}
        return cls(**chosen | settings)

    def begun(self, start: str | None) -> Recipe:
        """This recipe from another start; what is left at its default follows it.

        Args:
            start: ``"scratch"``, ``"trained"``, or None for the recipe's own.

        Raises:
            SettingsError: another start.
        """
        if start is None or start == self.start:
            return self
        if start not in STARTS:
            raise SettingsError(f"start={start!r} must be 'scratch', 'trained', or left out.")
        if start == "scratch":
            return replace(self, start=start)
        plain = Recipe()
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return Recipe.trained(**{n: v for n, v in given.items() if n != "start" and v != getattr(plain, n)})

    def __post_init__(self) -> None:
        """Check every value, and say all that is wrong at once."""
        problems = _of_other_kinds(self) or _problems(self)
        if problems:
            raise SettingsError("The recipe cannot be used:\n  " + "\n  ".join(problems))


def _of_other_kinds(recipe: Recipe) -> list[str]:
    """What is no number where one is needed, and what is no group of settings."""
    found = [
        f"{name}={value!r} must be a bp.{kind.__name__}(...)"
        for name, value, kind in (
            ("gates", recipe.gates or GateSteps(), GateSteps),
            ("shrink", recipe.shrink, Shrink),
            ("moves", recipe.moves or Moves(), Moves),
        )
        if not isinstance(value, kind)
    ]
    if found:
        return found
    for where, settings in (
        ("", recipe),
        ("gates.", recipe.gates or GateSteps()),
        ("shrink.", recipe.shrink),
        ("moves.", recipe.moves or Moves()),
    ):
        for item in fields(settings):
            value, kind, *optional = (getattr(settings, item.name), *str(item.type).split(" | "))
            if value is None and optional:
                continue
            if kind == "bool" and not isinstance(value, bool):
                found.append(f"{where}{item.name}={value!r} must be True or False")
            elif kind == "int" and not is_whole(value):
                found.append(f"{where}{item.name}={value!r} must be a whole number")
            elif kind == "float" and (isinstance(value, bool) or not isinstance(value, int | float)):
                found.append(f"{where}{item.name}={value!r} must be a number")
    if not (isinstance(recipe.estimator, str) or callable(recipe.estimator)):
        found.append(f"estimator={recipe.estimator!r} must be a name, such as 'curved', or an Estimator")
    return found


def _problems(recipe: Recipe) -> list[str]:
    gates, shrink, moves = recipe.gates or GateSteps(), recipe.shrink, recipe.moves or Moves()
    rates = {name: getattr(recipe, name) for name in ("learning_rate", "compact_learning_rate")}
    rules = [
        (_positive(gates.learning_rate), f"gates.learning_rate={gates.learning_rate} must be positive"),
        (0 <= gates.momentum < 1, f"gates.momentum={gates.momentum} must lie in [0, 1)"),
        (_positive(gates.clip), f"gates.clip={gates.clip} must be positive"),
        (gates.every >= 1, f"gates.every={gates.every} must be at least 1 step"),
        (_positive(gates.bound), f"gates.bound={gates.bound} must be positive"),
        (0 < shrink.below < 0.5, f"shrink.below={shrink.below} must lie between 0 and 0.5"),
        (shrink.every is None or shrink.every >= 1, f"shrink.every={shrink.every} must be at least 1 step"),
        (
            shrink.least >= 1,
            f"shrink.least={shrink.least} must be at least 1: a group without units is no network",
        ),
        (0 <= moves.correlation < 1, f"moves.correlation={moves.correlation} must lie in [0, 1)"),
        (moves.masks is None or moves.masks >= 1, f"moves.masks={moves.masks} must be at least 1 mask"),
        *(
            (rate is None or _positive(rate), f"{name}={rate} must be positive")
            for name, rate in rates.items()
        ),
        (
            0 <= recipe.compact_floor <= 1 and (recipe.averaging > 0 or recipe.compact_floor == 0),
            f"compact_floor={recipe.compact_floor} must lie in [0, 1], and be 0 where averaging is 0",
        ),
        (_positive(recipe.compact_scale), f"compact_scale={recipe.compact_scale} must be positive"),
        (0 <= recipe.weights_ramp <= 1, f"weights_ramp={recipe.weights_ramp} must lie in [0, 1]"),
        (
            0 < recipe.temperature <= 1,
            f"temperature={recipe.temperature} must lie in (0, 1]: 1 is the posterior, less a cold one",
        ),
        (0 <= recipe.averaging <= 1, f"averaging={recipe.averaging} must lie in [0, 1]"),
        (
            recipe.compact_weights in (None, "points", "normal"),
            f"compact_weights={recipe.compact_weights!r} must be 'points' or 'normal', or left out",
        ),
        (
            recipe.warmup >= 0 and recipe.ramp >= 0 and recipe.warmup + recipe.ramp <= recipe.decide <= 1,
            f"warmup={recipe.warmup}, ramp={recipe.ramp}, decide={recipe.decide} must fulfil "
            "0 ≤ warmup, 0 ≤ ramp, warmup + ramp ≤ decide ≤ 1",
        ),
        (
            recipe.start in STARTS,
            f"start={recipe.start!r} must be 'scratch', or 'trained' for weights that have learnt already",
        ),
        (
            0 <= recipe.frozen <= recipe.decide,
            f"frozen={recipe.frozen} must lie in [0, decide={recipe.decide}]: then weights learn",
        ),
    ]
    return [message for holds, message in rules if not holds]


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def describe(recipe: Recipe) -> dict[str, object]:
    """A recipe as plain values, for ``result.json`` and for comparing runs."""
    plain: dict[str, object] = {}
    for item in fields(recipe):
        value = getattr(recipe, item.name)
        if isinstance(value, GateSteps | Moves | Shrink):
            value = {f.name: getattr(value, f.name) for f in fields(value)}
        elif isinstance(value, Mapping):
            value = dict(value)
        elif value is not None and not isinstance(value, str | float | int):
            value = repr(value)
        plain[item.name] = value
    return plain
