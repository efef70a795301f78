"""pareto(): error against cost from one fit, by putting a price on cost and asking the evidence again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bayesprune.errors import PosteriorError
from bayesprune.gated import GatedModel
from bayesprune.gated.dead import median_units
from bayesprune.posterior.density import weight_draws
from bayesprune.posterior.draws import quiet, refuse_continuous
from bayesprune.posterior.evidence.ask import MOST_ROWS
from bayesprune.posterior.evidence.request import training_rows
from bayesprune.posterior.rows import check_rows, distinct
from bayesprune.ranges import check_seed, is_whole
from bayesprune.rows import Source
from bayesprune.selection.front import FrontFigures
from bayesprune.selection.repriced import MaskErrors, Repriced
from bayesprune.structure.copying import copy_of
from bayesprune.svi.estimators import Estimator, find_estimator
from bayesprune.svi.result import FitResult, prune
from bayesprune.svi.threads import threads_for, using_threads

COSTS = ("macs", "parameters")
LEVEL = 0.9
ROOM = 1.5
"""The smallest network is left out of the default budgets by this factor."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Front(FrontFigures):
    """Error against cost, from one fit, with the network of each point. Costs are percent of the dense one's.

    What ``FrontFigures`` has, and of each point:

    Attributes:
        masks: (points, units of all groups), bool: the most probable units, as many as the budget has room
            for, each group's best at least.
        price: (points,), λ, nats for one percent of the dense network's cost, beside the prior.
        inclusion: (points, units of all groups), q(z = 1).
    """

    masks: Array
    price: Array
    inclusion: Array
    _gated: GatedModel = field(repr=False)
    _weights: tuple[dict[str, Tensor] | None, ...] = field(repr=False)

    def prune(self, point: int) -> nn.Module:
        """The network of one point's mask, with the weights that its error was counted with.

        Args:
            point: its number.

        Returns:
            Plain PyTorch, as ``bp.prune`` gives it.
        """
        gated = copy_of(self._gated)
        for name, tensor in gated.weight_tensors().items():
            tensor.data.copy_((self._weights[point] or {}).get(name, tensor.data))
        gated.remove_(~torch.from_numpy(self.masks[point]).to(gated.alive.device))
        gated.log_odds.data[gated.alive] = 30.0
        return prune(gated)


def pareto(
    result: FitResult | GatedModel,
    rows: Source,
    held_out: Source | None = None,
    *,
    cost: str = "macs",
    budgets: Sequence[float] | None = None,
    points: int = 8,
    draws: int = 40,
    adapt: bool = True,
    at: str = "end",
    estimator: str | Estimator = "curved",
    seed: int = 0,
) -> Front:
    """Error against cost from one fit, with intervals.

    From the fit's own posterior to smaller networks: the evidence of all units is estimated, a few passes
    over the training rows, and gates follow it at the price of cost that meets the next budget on average.
    Readers of the units that stay are re-weighted by least squares so that they stand in for those that go
    (``bp.selection.Fuse``), which needs no targets, and the evidence is asked again. At each point masks are
    drawn, weights where they have a posterior, and weights of the rows (the Bayesian bootstrap, Rubin 1981,
    by 50 blocks), and costs and errors counted.

    No gradient step is taken: where most of a network goes, one that learns under that budget has a lower
    error (docs, "Figures"). The front says how far a fit can be cut as it is, and where cutting begins to
    hurt; it is of most use for a fit that has kept more than is needed.

    Args:
        result: of a fit, or a gated model.
        rows: (inputs, targets), the training rows, or some of them: for evidence, and for the re-weighting.
        held_out: (inputs, targets) that were not trained on, for errors; the training rows by default, which
            flatter.
        cost: ``"macs"`` or ``"parameters"``.
        budgets: shares of the dense network's cost, on average over masks; by default as many as ``points``,
            evenly spaced by their logarithms, from what is left to 1.5 times the smallest network.
        points: how many.
        draws: of masks, weights and rows, at each; each mask is re-weighted.
        adapt: whether weights follow masks; else all is given the weights as they were learnt.
        at: ``"end"``, or ``"decision"`` for gates and units as they were before they were decided. Units of
            q(z = 1) < ½ are left out where weights follow, as the network works without them.
        estimator: of the evidence, a name or an ``Estimator``.
        seed: of all draws; torch's own random state is left alone.

    Returns:
        The front; ``print`` shows it, ``bp.plots.plot_pareto`` draws it.

    Raises:
        PosteriorError: a number out of range, or a budget that is more than what is left, or less than one
            unit in every group.
        DataError, LikelihoodError: rows that do not fit the model.

    Example:
        >>> import bayesprune as bp
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(100, 6)
        >>> network = torch.nn.Sequential(torch.nn.Linear(6, 1))
        >>> prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=1.0))
        >>> noise = bp.Gaussian(rows=100, scale=1.0, learn_scale=False)
        >>> gated = bp.gate(network, x[:1], prior=prior, likelihood=noise)
        >>> front = pareto(gated, (x, x[:, :2].sum(1, keepdim=True)), budgets=[0.5, 0.3])
        >>> len(front), front.masks.shape
        (2, (2, 6))
    """
    _check(cost, budgets, points, draws)
    check_seed(seed, PosteriorError)
    gated = copy_of(_model(result, at)).eval().requires_grad_(False)
    refuse_continuous(gated, "The front's masks")
    pair = training_rows(gated, rows)
    scored = pair if held_out is None else check_rows(gated, held_out)
    if adapt:
        gated.remove_(gated.alive & ~median_units(gated))
    found: list[_Point] = []
    with using_threads(threads_for(gated.dense_macs, min(MOST_ROWS, len(pair[0])))):
        repriced = Repriced(gated, pair, cost, find_estimator(estimator), adapt, seed)
        errors = MaskErrors(gated, scored)
        with quiet(gated):
            torch.manual_seed(seed)
            for budget in _budgets(repriced, budgets, points):
                with torch.enable_grad():
                    _, price = repriced.at(budget)
                found.append(_Point.of(repriced, errors, price, draws))
    return _front(found, gated, cost, adapt, held_out is None)


@dataclass(frozen=True)
class _Point:
    cost: Array  # (draws,), percent
    error: Array  # (draws · 20,)
    mask: Tensor
    mask_cost: float
    mask_error: float
    price: float
    theta: Tensor
    weights: dict[str, Tensor] | None

    @staticmethod
    def of(repriced: Repriced, errors: MaskErrors, price: float, draws: int) -> _Point:
        """Draws at one price, and its mask."""
        gated, masks, mask = repriced.gated, repriced.masks(draws), repriced.mask()
        different, which = distinct(masks)
        costs = torch.stack([repriced.cost_of(repriced.closed(z).double()) for z in different])[which]
        if gated.log_scales_by_tensor():
            sums = torch.empty(draws, len(errors.sizes), dtype=torch.double)
            for part, drawn in weight_draws(gated, draws):
                for offset, z in enumerate(masks[part]):
                    one = {name: values[offset] for name, values in drawn.items()}
                    sums[part.start + offset] = errors.of(z, repriced.weights(z, one))
        else:
            sums = torch.stack([errors.of(z, repriced.weights(z)) for z in different])[which]
        weights = repriced.weights(mask)
        return _Point(
            100 * costs.numpy(), errors.weighed(sums).numpy(), mask,
            100 * float(repriced.cost_of(mask.double())), errors.mean(float(errors.of(mask, weights).sum())),
            price / 100, repriced.theta, weights,
        )  # fmt: skip


def _budgets(repriced: Repriced, budgets: Sequence[float] | None, points: int) -> Iterator[float]:
    """Shares of the dense cost, the largest first."""
    most = float(repriced.cost_of(repriced.living.double()))
    least = float(repriced.cost_of(repriced.smallest().double()))
    if budgets is not None:
        under = [budget for budget in budgets if budget < least]
        if under:
            raise PosteriorError(
                f"budgets={under}: a network of one unit in every group takes {least:.3g} of the dense one's "
                f"{repriced.kind}. Give larger ones."
            )
        over = [budget for budget in budgets if budget > most]
        if over:
            raise PosteriorError(
                f"budgets={over}: what is left of the network is {most:.3g} of the dense network's "
                f"{repriced.kind}, and removed units are gone. Give smaller ones, or a fit that kept more."
            )
        yield from sorted(budgets, reverse=True)
        return
    now = float(repriced.cost_of(repriced.theta))
    yield from np.geomspace(now, min(ROOM * least, now), points).tolist()


def _front(found: list[_Point], gated: GatedModel, cost: str, adapt: bool, trained: bool) -> Front:
    def interval(values: list[Array]) -> Array:
        return np.stack([np.quantile(v, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) for v in values])

    weights = "drawn from their posterior" if gated.log_scales else "as they were learnt"
    weights += ", readers re-weighted under each mask" if adapt else ""
    scored = "the training rows, which flatter" if trained else "rows held out"
    return Front(
        cost=np.array([p.cost.mean() for p in found]), cost_interval=interval([p.cost for p in found]),
        error=np.array([p.error.mean() for p in found]), error_interval=interval([p.error for p in found]),
        masks=torch.stack([p.mask for p in found]).numpy(),
        mask_cost=np.array([p.mask_cost for p in found]),
        mask_error=np.array([p.mask_error for p in found]),
        price=np.array([p.price for p in found]),
        inclusion=torch.stack([p.theta for p in found]).numpy(),
        cost_name=cost, error_name=gated.likelihood.score_name,
        conditions=f"Weights are {weights}; units that were removed are gone; errors are of {scored}.",
        _gated=gated, _weights=tuple(p.weights for p in found),
    )  # fmt: skip


def _model(result: Any, at: str) -> GatedModel:
    if at not in ("end", "decision"):
        raise PosteriorError(f"at={at!r} must be 'end' or 'decision'.")
    if isinstance(result, GatedModel) and at == "end":
        return result
    if not isinstance(result, FitResult):
        raise PosteriorError(
            f"pareto takes the result of fit(), and got a {type(result).__name__}, at={at!r}."
        )
    if at == "end":
        return result.gated
    if result.at_decision is None:
        raise PosteriorError("at='decision': the fit has kept nothing of a decision. Take at='end'.")
    return result.at_decision


def _check(cost: Any, budgets: Any, points: Any, draws: Any) -> None:
    if cost not in COSTS:
        raise PosteriorError(f"cost={cost!r} must be one of {', '.join(map(repr, COSTS))}.")
    for name, value in (("points", points), ("draws", draws)):
        if not is_whole(value) or value < 2:
            raise PosteriorError(f"{name}={value!r} must be a whole number, at least 2.")
    if budgets is not None and (
        not len(budgets) or any(not isinstance(b, int | float) or not 0 < b <= 1 for b in budgets)
    ):
        raise PosteriorError(f"budgets={budgets!r} must be shares of the dense cost, above 0 and up to 1.")
