"""Dual ascent: how the multipliers of a budget move, and what they aim at."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesprune.priors import CostGates
from bayesprune.structure import ExpectedCost

LEAD = 4.0
"""Log-odds that a gate falls while the aim runs ahead of the ramp: what is given up now is gone only then."""

FEEDBACK, MOST = 0.5, 3.0
"""Where the expected cost is r times the aim, what is kept shall cost r^-FEEDBACK of it; r at most MOST."""

LOWEST = 5.0
"""How many nats log λ may fall below its first value, where a constraint is slack."""


class Ascent:
    r"""Coordinate ascent on the dual of a budget, linearised in the gates.

    With the evidence e_u (nats that unit u saves) and a_ku = ∂share_k/∂θ_u, the Lagrangian is linear in θ
    near where it is, and its minimiser keeps {u : e_u > Σ_k λ_k a_ku}. The dual is at its maximum in λ_k
    where what is kept costs as much as the constraint allows:

    .. math:: \lambda_k^* = \min\{\lambda \ge 0 : \mathrm{share}_k(\{u : e_u > \lambda a_{ku}
              + \textstyle\sum_{j \ne k} \lambda_j a_{ju}\}) \le \mathrm{aim}_k\}

    One sorting by evidence for cost and a bisection finds it, whatever its scale; log λ_k moves there by a
    share of the way, since evidence is noisy. A constraint that is slack loses its price. The aim sinks
    from the cost at the start to the budget on a geometric path, start^(1 - t) · budget^t; while the expected
    cost lags behind it, it is set lower still. Derived here.

    Args:
        prior: its ``log_multipliers`` are moved.
        momentum: of the gates' steps, over which evidence is smoothed: λ follows twice as fast.
        lead: by how much the aim runs ahead, as a share of the ramp.
    """

    def __init__(self, prior: CostGates, momentum: float, lead: float) -> None:
        self.prior, self.rate, self.lead = prior, min(2 * (1 - momentum), 1.0), lead
        self.first = prior.log_multipliers.clone()

    def aim(self, progress: float) -> Tensor:
        """(costs,), shares to aim at; NaN where there is no budget.

        Args:
            progress: share of the ramp that lies behind.
        """
        assert self.prior.budget is not None
        ahead = min(progress + self.lead, 1.0)
        aim = self.prior.start ** (1 - ahead) * self.prior.budget**ahead
        return torch.where(self.prior.budget.isnan(), torch.nan, aim)  # NaN ** 0 would be one

    def ascend_(self, costs: ExpectedCost, evidence: Tensor, probs: Tensor, progress: float) -> None:
        """Move every multiplier towards its best value given the others.

        Args:
            costs: of the network as it is now.
            evidence: (units of all groups,), nats that each unit saves.
            probs: (units of all groups,), θ; zero for removed units.
            progress: share of the ramp that lies behind.
        """
        prior, aim = self.prior, self.aim(progress)
        aim = aim / (prior.shares(costs, probs) / aim).clamp(1 / MOST, MOST) ** FEEDBACK
        adds = torch.stack(
            [prior.slopes(costs, probs, weights)[1] for weights in torch.eye(len(aim)).to(aim)]
        )
        for kind in range(len(aim)):
            if bool(aim[kind].isnan()):
                continue
            best = self._best(costs, evidence, adds, aim, kind)
            best = torch.maximum(best.log(), self.first[kind] - LOWEST)
            rate = max(self.rate, 1 / (int(prior.moves) + 1))  # a plain mean of the first ones
            prior.log_multipliers[kind] += rate * (best - prior.log_multipliers[kind])

    def _best(self, costs: ExpectedCost, evidence: Tensor, adds: Tensor, aim: Tensor, kind: int) -> Tensor:
        """Scalar λ*, nats per share; zero where the constraint is slack."""
        multipliers = self.prior.log_multipliers.exp()
        others = multipliers @ adds - multipliers[kind] * adds[kind]
        ratio = torch.where(adds[kind] > 0, (evidence - others) / adds[kind], -torch.inf)
        order = ratio.argsort(descending=True, stable=True)
        few, many = 0, int((ratio > 0).sum())  # units kept: within the aim, and perhaps too many
        if many == 0 or self._share(costs, order[:many], kind) <= aim[kind]:
            return ratio.new_zeros(())
        while many - few > 1:
            middle = (few + many) // 2
            within = self._share(costs, order[:middle], kind) <= aim[kind]
            few, many = (middle, many) if within else (few, middle)
        return ratio[order[few]]

    def _share(self, costs: ExpectedCost, kept: Tensor, kind: int) -> Tensor:
        mask = torch.zeros_like(self.prior.prices)
        mask[kept] = 1.0
        return self.prior.shares(costs, mask)[kind]
