"""What may be asked of a fit, and in what words it is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bayesprune.errors import PosteriorError
from bayesprune.gated import GatedModel
from bayesprune.posterior.rows import Rows, check_rows
from bayesprune.structure.naming import no_group
from bayesprune.svi.estimators import ARM, Concrete, Estimator, Reinforce
from bayesprune.svi.result import FitResult

Units = int | Literal["all"] | Mapping[str, Iterable[int]]


def model_of(source: FitResult | GatedModel) -> GatedModel:
    """The gated model of a result, or the model itself.

    Args:
        source: what the user gave.

    Raises:
        PosteriorError: it is neither.
    """
    if isinstance(source, FitResult):
        return source.gated
    if isinstance(source, GatedModel):
        return source
    raise PosteriorError(
        f"evidence() takes the result of fit(), or a gated model, and got {type(source).__name__}: draws and "
        "pruned networks have no gates to open and shut. Give bp.evidence(result, (x, y))."
    )


def training_rows(gated: GatedModel, rows: Any) -> Rows:
    """Rows that the model may have been fitted to.

    Args:
        gated: the model.
        rows: what the user gave.

    Raises:
        DataError: they are no rows, not whole, or not like those that the network was gated on.
        PosteriorError: more rows than the training had.
        LikelihoodError: rows that do not fit the likelihood.
    """
    x, y = check_rows(gated, rows)
    if len(x) > gated.likelihood.rows:
        raise PosteriorError(
            f"rows= has {len(x)} rows, and the model was fitted to {gated.likelihood.rows}: give the "
            "training rows, or some of them. Others say nothing of what a unit saves there."
        )
    return x, y


def check_request(
    gated: GatedModel, probs: Tensor, units: Units, others: str, estimator: Estimator, draws: int
) -> None:
    """Collect everything that cannot be done, and say it at once.

    Args:
        gated: the model.
        probs: (living units,), q(z = 1) that gates would be drawn with.
        units: asked for exactly.
        others: where the other gates are to be.
        estimator: of the gates' gradient.
        draws: of gates.

    Raises:
        PosteriorError: place, value and remedy of every problem.
    """
    problems = list(_unit_problems(gated, units))
    if others not in ("posterior", "hard"):
        problems.append(f"others={others!r} must be 'posterior' or 'hard'")
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        problems.append(f"draws={draws!r} must be a whole number, at least 1")
    stuck = int(((probs == 0) | (probs == 1)).sum())
    if stuck and isinstance(estimator, Concrete | ARM | Reinforce):
        problems.append(
            f"estimator {type(estimator).__name__} sees nothing of {stuck} gates that are decided: "
            "use 'curved'"
        )
    if not len(probs):
        problems.append("no unit is left in the network")
    if problems:
        raise PosteriorError("evidence() cannot be had:\n  " + "\n  ".join(problems))


def _unit_problems(gated: GatedModel, units: Any) -> Iterator[str]:
    if isinstance(units, int) and not isinstance(units, bool):
        if units < 0:
            yield f"units={units} must be 0 or more"
    elif isinstance(units, Mapping):
        alive = gated.by_group(gated.alive.cpu())
        for name, numbers in units.items():
            if name not in alive:
                yield f"units: {no_group(name, alive)}"
            elif isinstance(numbers, str) or not isinstance(numbers, Iterable):
                yield f"units: {name!r} has {numbers!r}, and needs numbers of units, such as [3, 7]"
            else:
                yield from _number_problems(name, numbers, alive[name])
    elif units != "all":
        yield f"units={units!r} must be a number, 'all', or group → units, such as {{'fc1': [3, 7]}}"


def _number_problems(group: str, numbers: Iterable[Any], alive: Tensor) -> Iterator[str]:
    for number in numbers:
        if not isinstance(number, int | np.integer) or not 0 <= number < len(alive):
            yield f"units: {number!r} is no unit of {group!r}, which has 0 … {len(alive) - 1}"
        elif not bool(alive[int(number)]):
            yield f"units: {number} of {group!r} was removed, and its weights with it: nothing is known of it"


def places_of(gated: GatedModel, units: Units, distance: np.ndarray[Any, Any]) -> Tensor:
    """(asked,), places among the living units, of a request that has been checked.

    Args:
        gated: the model.
        units: asked for.
        distance: (living units,), nats from the line gain = price, by the estimates.
    """
    if units == "all":
        return torch.arange(len(distance))
    if isinstance(units, int):
        return torch.from_numpy(np.argsort(distance, kind="stable")[:units])
    assert isinstance(units, Mapping)
    wanted, parts = torch.zeros(len(gated.alive), dtype=torch.bool), gated.slices()
    for name, numbers in units.items():
        for number in numbers:
            wanted[parts[name].start + int(number)] = True
    return wanted[gated.alive.cpu()].nonzero().squeeze(1)
