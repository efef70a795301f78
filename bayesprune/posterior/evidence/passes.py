r"""What units save of the training rows' nats: estimated for all at once, exact by leaving one out.

With L(z) the mean negative log-likelihood of the rows under gates z, and N the training rows,

.. math:: \mathrm{gain}_u = N \left( \mathbb{E}_{z_{-u}}[L \mid z_u = 0]
          - \mathbb{E}_{z_{-u}}[L \mid z_u = 1] \right),

the other gates drawn for every row apart. Weights stay as they are, or are drawn from their posterior:
nothing is learnt anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import functional_call

from bayesprune.gated import GatedModel
from bayesprune.posterior.rows import Rows
from bayesprune.svi.estimators import Estimator, GateProblem
from bayesprune.svi.weight_noise import WeightNoise

Array = npt.NDArray[np.float64]
Tick = Callable[[int], object]

ROWS_AT_ONCE = 2048
"""Rows that run through the network together, a row counted once for each unit that is left out of it."""


@dataclass(frozen=True)
class Setting:
    """What the passes condition on.

    Attributes:
        gated: the model in evaluation, none of whose parameters asks for a gradient.
        probs: (living units,), q(z = 1) that gates are drawn with; zeros and ones where they are not drawn.
        draws: of gates and weights, for every row.
        draw_weights: whether weights that have a posterior are drawn, or stand at their means.
        batch_size: rows of a batch.
        generator: of all draws, on the model's device.
    """

    gated: GatedModel
    probs: Tensor
    draws: int
    draw_weights: bool
    batch_size: int
    generator: torch.Generator

    def batches(self, rows: Rows) -> Iterator[Rows]:
        """Inputs and targets batch by batch, on the model's device."""
        device = self.gated.log_odds.device
        for x, y in zip(rows[0].split(self.batch_size), rows[1].split(self.batch_size), strict=True):
            yield x.to(device), y.to(device)

    def settled(self) -> bool:
        """Whether no gate is drawn."""
        return bool(((self.probs == 0) | (self.probs == 1)).all())


class _Settled(GateProblem):
    """Gates that stand at their vertices: drawn from sixteen bits, one in 65,536 would not."""

    def draw(self) -> dict[str, Tensor]:
        return {name: z.clone() for name, z in self.split(self.probs.expand(self.rows, -1)).items()}


def estimated_gains(setting: Setting, rows: Rows, estimator: Estimator, tick: Tick) -> tuple[Array, Array]:
    """The gains of all living units as an estimator of the gates' gradient sees them.

    The fit moves its gates by the same estimates, each of one draw of one batch.

    Args:
        setting: what they condition on.
        rows: (inputs, targets).
        estimator: of ∂E[L]/∂q(z = 1), which is minus a unit's gain, by the row.
        tick: called with the number of rows after every pass.

    Returns:
        (living units,) gains and (living units,) their Monte-Carlo standard errors, nats. The variance is
        that between the draws of a batch, summed over batches: it does not count that rows differ, nor the
        estimator's bias. NaN for a single draw.
    """
    gated, noise, total = setting.gated, None, _Total(setting, len(rows[0]))
    if setting.draw_weights:
        noise = WeightNoise(gated, setting.generator)
    kind = _Settled if setting.settled() else GateProblem
    for x, y in setting.batches(rows):
        anchor = torch.ones((), device=x.device, requires_grad=True)  # some estimators differentiate no gate

        def nll(
            gates: Mapping[str, Tensor],
            factors: Mapping[str, Tensor] | None = None,
            batch: Rows = (x, y),
            anchor: Tensor = anchor,
        ) -> Tensor:
            return gated.likelihood.nll(gated.network(batch[0], gates, noise), batch[1]) * anchor

        log_odds = torch.logit(setting.probs)
        problem = kind(nll, setting.probs, log_odds, gated.kept(), len(x), setting.generator)
        slopes = []
        for _ in range(setting.draws):
            slope = estimator(problem).differentiated()
            assert slope is not None
            slopes.append(-slope.detach())
            tick(len(x))
        total.add(torch.stack(slopes), len(x))
    return total.result()


def left_out_gains(
    setting: Setting, rows: Rows, units: Tensor, tick: Tick, at_once: int | None = None
) -> tuple[Array, Array]:
    """The exact gains of some units: every row runs with the unit and without it, all else being equal.

    Both runs share the row's other gates and the drawn weights (common random numbers). The row's own draw
    of z_u is one of the two, so that every unit costs one pass more.

    Args:
        setting: what they condition on.
        rows: (inputs, targets).
        units: (asked,), by their places among the living units.
        tick: called with the number of rows after every pass, counted once for each unit.
        at_once: units that share a pass; by default as many as ``ROWS_AT_ONCE`` has room for.

    Returns:
        (asked,) gains and (asked,) their Monte-Carlo standard errors, nats, as for the estimates; 0 where
        nothing is drawn.
    """
    total, units = _Total(setting, len(rows[0])), units.to(setting.probs.device)
    at_once = at_once or max(1, ROWS_AT_ONCE // setting.batch_size)
    with torch.no_grad():
        for x, y in setting.batches(rows):
            saved = [_saved(setting, (x, y), units, at_once, tick) for _ in range(setting.draws)]
            total.add(torch.stack(saved), len(x))
    return total.result()


def _saved(setting: Setting, batch: Rows, units: Tensor, at_once: int, tick: Tick) -> Tensor:
    """(asked,), mean nats that a row saves by each unit, under one draw of everything else."""
    gated, (x, y) = setting.gated, batch
    shape = (len(x), len(setting.probs))
    uniform = torch.rand(
        shape, dtype=setting.probs.dtype, device=x.device, generator=setting.generator
    )  # (rows, units)
    gates = (uniform < setting.probs).to(gated.log_odds.dtype)
    weights: dict[str, Tensor] = {}
    if setting.draw_weights:
        noise = WeightNoise(gated, setting.generator)
        weights = {name: noise.draw(name, tensor) for name, tensor in gated.weight_tensors().items()}
    sizes = list(gated.kept().values())

    def nll(z: Tensor) -> Tensor:
        parts = dict(zip(gated.kept(), z.split(sizes, -1), strict=True))
        return gated.likelihood.nll(functional_call(gated.network, weights, (x, parts)), y).double()

    drawn, saved = nll(gates), []
    tick(len(x))
    for some in units.split(at_once):
        flipped = gates.repeat(len(some), 1, 1)
        place = torch.arange(len(some), device=x.device)
        flipped[place, :, some] = 1 - flipped[place, :, some]
        was_open = gates[:, some].T > 0  # (some, rows)
        difference = nll(flipped) - drawn
        saved.append(torch.where(was_open, difference, -difference).mean(1))
        tick(len(x) * len(some))
    return torch.cat(saved)


class _Total:
    """Gains and their variances, added up over batches."""

    def __init__(self, setting: Setting, rows: int) -> None:
        self.setting, self.rows = setting, rows
        self.mean: Tensor | float = 0.0
        self.variance: Tensor | float = 0.0

    def add(self, draws: Tensor, rows: int) -> None:
        """Take a batch of so many rows: (draws, units), nats a row."""
        share, draws = rows / self.rows, draws.double()
        self.mean = self.mean + share * draws.mean(0)
        variance = draws.var(0) if len(draws) > 1 else torch.full_like(draws[0], torch.nan)
        if self.setting.settled() and not self.setting.draw_weights:
            variance = torch.zeros_like(draws[0])
        self.variance = self.variance + share**2 * variance / len(draws)

    def result(self) -> tuple[Array, Array]:
        """(units,) gains and (units,) standard errors, nats of the training set."""
        assert isinstance(self.mean, Tensor) and isinstance(self.variance, Tensor)
        scale = self.setting.gated.likelihood.rows
        return scale * self.mean.cpu().numpy(), scale * self.variance.sqrt().cpu().numpy()
