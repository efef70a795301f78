r"""A posterior over masks under a price on cost: gates that meet a budget on average, weights that follow.

.. math:: q_\lambda(z) \propto q(z)\, e^{-\lambda\, \mathrm{cost}(z)}, \qquad
          \operatorname{logit} \theta_u = \mathrm{gain}_u - \mathrm{price}_u
          - \lambda\, \frac{\partial\, \mathbb{E}[\mathrm{cost}]}{\partial \theta_u}

is the best q of independent gates where the posterior pays λ nats for each unit of cost beside its prior: the
slope of the objective, at zero. Derived here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from bayesprune.gated import GatedModel
from bayesprune.posterior.evidence.ask import BATCHES, MOST_ROWS
from bayesprune.posterior.evidence.passes import Setting, estimated_gains
from bayesprune.posterior.evidence.prices import unit_prices
from bayesprune.posterior.rows import Rows, outputs_of
from bayesprune.selection.fuse import reweighted
from bayesprune.structure import ExpectedCost
from bayesprune.structure.copying import copy_of
from bayesprune.structure.groups import close_over
from bayesprune.structure.minimal import minimal_masks
from bayesprune.svi.estimators import Estimator

EDGE = 1e-6
"""Gates are drawn no nearer to a vertex than this, so that evidence of closed units is seen."""
SWEEPS, CACHED = 6, 0.5
"""Times that the evidence is asked at a budget, and the share of what was known that stays each time."""
STEP = 0.75
"""By which costs fall between two looks at the evidence, where weights follow."""
GAIN_DRAWS = 4
ADAPT_ROWS = 1000
BLOCKS, WEIGHINGS = 50, 20
"""Of rows, whose errors are weighed anew; and how often in each draw, which costs no pass."""


class Repriced:
    """Gates and weights of one model as a price on cost rises; budgets are asked from large to small.

    Args:
        gated: the model, in evaluation; left alone.
        rows: (inputs, targets), training rows.
        cost: ``"macs"`` or ``"parameters"``.
        estimator: of gains.
        adapt: whether weights follow masks, by least squares on the readers' inputs (``Fuse``).
        seed: of the draws of gates.
    """

    def __init__(
        self, gated: GatedModel, rows: Rows, cost: str, estimator: Estimator, adapt: bool, seed: int
    ) -> None:
        self.gated, self.rows, self.estimator, self.adapt = gated, rows, estimator, adapt
        self.now = copy_of(gated)  # with the weights of the mask that was reached
        self.expected, self.kind = ExpectedCost(gated.network), cost
        self.dense = float(gated.dense_macs if cost == "macs" else gated.dense_parameters)
        self.living = gated.alive.cpu()
        self.generator = torch.Generator(gated.log_odds.device).manual_seed(seed)
        self.theta = gated.inclusion_prob().detach().double().cpu()
        self.evidence: Tensor | None = None
        self.budget = float(self.cost_of(self.living.double()))

    def at(self, budget: float) -> tuple[Tensor, float]:
        """Independent gates of that expected cost.

        Args:
            budget: share of the dense network's cost.

        Returns:
            (units of all groups,), q(z = 1); and λ, nats for the whole cost of the dense network.
        """
        price = 0.0
        for target in self._targets(budget):
            fresh = self._asked()
            if self.evidence is None or self.adapt:
                self.evidence = fresh
            else:
                self.evidence = CACHED * self.evidence + (1 - CACHED) * fresh
            slopes = self._slopes()
            price = self._price(self.evidence, slopes, target)
            self.theta, self.budget = self._theta(self.evidence - price * slopes), target
            if self.adapt:
                self._follow_()
        return self.theta, price

    def cost_of(self, theta: Tensor) -> Tensor:
        """Scalar, share of the dense network's expected cost under (units of all groups,) probabilities."""
        found = self.expected(self.gated.by_group(theta))
        return (found.macs if self.kind == "macs" else found.parameters) / self.dense

    def mask(self) -> Tensor:
        """(units of all groups,), bool: the most probable units, as many as the last budget has room for.

        Each group keeps its best at least, and what nobody reads is left out. Where gates are undecided,
        those of q(z = 1) ≥ ½ may be far more, or fewer, than a budget that is met on average.
        """
        least = self._least()
        order = torch.where(self.living, self.theta, -1.0).argsort(descending=True, stable=True)
        low, high, best = 0, int((self.living & (self.theta > EDGE)).sum()), self.closed(least)
        while low < high:  # costs rise with every unit
            middle = (low + high + 1) // 2
            mask = least.clone()
            mask[order[:middle]] = True
            mask = self.closed(mask)
            if float(self.cost_of(mask.double())) <= self.budget * (1 + 1e-9):
                low, best = middle, mask
            else:
                high = middle - 1
        return best

    def closed(self, mask: Tensor) -> Tensor:
        """(units of all groups,), bool, without units that nobody reads."""
        parts = {name: part.bool().cpu() for name, part in self.gated.by_group(mask).items()}
        return torch.cat(list(close_over(self.gated.network.slots, parts).values()))

    def masks(self, draws: int) -> Tensor:
        """(draws, units of all groups), int8, by torch's random state.

        Where weights follow, no group is drawn empty: its most probable unit is there, as in any network.
        """
        masks = torch.rand(draws, len(self.theta), dtype=torch.double) < self.theta
        for part in self.gated.slices().values() if self.adapt else ():
            if bool(self.living[part].any()):
                best = part.start + int(self.theta[part].argmax())
                masks[:, best] |= ~masks[:, part].any(1)
        return masks.to(torch.int8)

    def weights(self, mask: Tensor, drawn: Mapping[str, Tensor] | None = None) -> dict[str, Tensor] | None:
        """Tensor name → values under a mask; None where they are as they were learnt.

        Args:
            mask: (units of all groups,), zeros and ones.
            drawn: tensor name → values to begin from; by default those that were learnt.
        """
        if not self.adapt:
            return None if drawn is None else dict(drawn)
        network = self.gated.network
        if drawn is not None:
            network = copy_of(network)
            for name, parameter in network.named_parameters():
                if name in drawn:
                    parameter.data.copy_(drawn[name])
        inputs = self.rows[0][:: math.ceil(len(self.rows[0]) / ADAPT_ROWS)]
        new = reweighted(network, inputs, self.gated.by_group(self.closed(mask)))
        return {name: p.data for name, p in new.named_parameters() if name in self.gated.weight_tensors()}

    def smallest(self) -> Tensor:
        """(units of all groups,), bool, a network of one unit a group, without optional sections."""
        return torch.cat(list(minimal_masks(self.gated.network).values())) & self.living

    # ---- parts

    def _least(self) -> Tensor:
        """(units of all groups,), bool, the most probable unit of each group, where they read each other."""
        best = torch.zeros_like(self.living)
        for group in self.gated.groups:
            part = self.gated.slices()[group.name]
            if not group.optional and bool(self.living[part].any()):
                best[part.start + int(self.theta[part].argmax())] = True
        return best if torch.equal(self.closed(best), best) else self.smallest()

    def _targets(self, budget: float) -> Iterator[float]:
        if not self.adapt:
            yield from [budget] * SWEEPS
            return
        now = float(self.cost_of(self.theta))
        steps = max(1, math.ceil(math.log(budget / now) / math.log(STEP))) if budget < now else 1
        yield from np.geomspace(now, budget, steps + 1)[1:].tolist()

    def _asked(self) -> Tensor:
        """(units of all groups,), gain − price of each, the others as they are; nats.

        Weights that follow a mask are those of that mask: the other gates then stand on it.
        """
        theta = self.mask().double() if self.adapt else self.theta
        probs = theta.clamp(EDGE, 1 - EDGE)[self.living].to(self.now.log_odds)
        setting = Setting(
            self.now, probs, GAIN_DRAWS, bool(self.now.log_scales),
            min(MOST_ROWS, math.ceil(len(self.rows[0]) / BATCHES)), self.generator,
        )  # fmt: skip
        gains, _ = estimated_gains(setting, self.rows, self.estimator, lambda rows: None)
        found = torch.full((len(self.living),), -torch.inf, dtype=torch.double)
        prices = unit_prices(self.now, theta.to(self.now.log_odds))
        found[self.living] = torch.from_numpy(gains) - prices[self.living]
        return found

    def _follow_(self) -> None:
        found = self.weights(self.mask())
        assert found is not None
        for name, tensor in self.now.weight_tensors().items():
            tensor.data.copy_(found[name])

    def _slopes(self) -> Tensor:
        """(units of all groups,), what each adds to the expected cost."""
        free = self.theta.clone().requires_grad_(True)
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self.cost_of(free), free)
        return slope

    def _theta(self, log_odds: Tensor) -> Tensor:
        theta = torch.sigmoid(log_odds)
        if self.gated.pinned is not None:
            pinned = self.gated.pinned.cpu().double()
            theta = torch.where(pinned != 0, torch.sigmoid(pinned), theta)
        return torch.where(self.living, theta, 0.0)

    def _price(self, evidence: Tensor, slopes: Tensor, budget: float) -> float:
        """By bisection: the expected cost falls as the price rises."""

        def above(price: float) -> bool:
            return float(self.cost_of(self._theta(evidence - price * slopes))) > budget

        low, high = -1.0, 1.0
        while above(high) and high < 1e12:
            high *= 2
        while not above(low) and low > -1e12:
            low *= 2
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if above(middle) else (low, middle)
        return (low + high) / 2


class MaskErrors:
    """Errors of masks on some rows, block by block.

    Args:
        gated: the model.
        rows: (inputs, targets).
    """

    def __init__(self, gated: GatedModel, rows: Rows) -> None:
        device = gated.log_odds.device
        self.gated, self.x, self.y = gated, rows[0].to(device), rows[1].to(device)
        self.parts = torch.arange(len(self.y)).chunk(min(BLOCKS, len(self.y)))
        self.sizes = torch.tensor([float(len(part)) for part in self.parts], dtype=torch.double)

    def of(self, mask: Tensor, weights: dict[str, Tensor] | None = None) -> Tensor:
        """(blocks,), sums of the likelihood's score under (units of all groups,) gates."""
        outputs, score = outputs_of(self.gated, self.x, mask, weights), self.gated.likelihood.score
        blocks = [float(score(outputs[p[0] : p[-1] + 1], self.y[p[0] : p[-1] + 1])) for p in self.parts]
        return torch.tensor(blocks, dtype=torch.double)

    def weighed(self, sums: Tensor) -> Tensor:
        """(draws · 20,), scores of all rows: of each draw's (draws, blocks) sums 20, blocks weighed anew."""
        sums = sums.repeat_interleave(WEIGHINGS, 0)
        shares = torch.distributions.Dirichlet(torch.ones_like(self.sizes)).sample(torch.Size([len(sums)]))
        totals = (shares * sums / self.sizes).sum(1) * len(self.y)
        return torch.tensor([self.mean(float(total)) for total in totals], dtype=torch.double)

    def mean(self, total: float) -> float:
        """The score of all rows."""
        return self.gated.likelihood.mean_score(total, len(self.y))
