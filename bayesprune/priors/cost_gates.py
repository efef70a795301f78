"""Gates whose prices follow from what the network costs: λ nats for each share of its MACs or parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from bayesprune.priors.gates import Gates
from bayesprune.priors.unit_prices import flat_penalty, sample_best, sample_logits
from bayesprune.structure import Costed, ExpectedCost
from bayesprune.structure.groups import Group
from bayesprune.structure.kinds import Kind

KINDS = ("macs", "params")
"""What is counted, in the order in which every tensor of this room has it."""

LEAST_PRICE = 1e-3
"""Nats: a price under it is no price; removed units have none either."""


class CostGates(nn.Module):
    r"""Bernoulli gates under a flattening hyper-prior; a unit's price is λ times what it adds to the cost.

    .. math:: \mathrm{price}_u = \sum_k \lambda_k\, \frac{\partial}{\partial \theta_u}
              \frac{\mathbb{E}_\theta[\mathrm{cost}_k]}{\mathrm{dense\ cost}_k},
              \qquad k \in \{\mathrm{MACs}, \mathrm{parameters}\}

    So Σ price_u θ_u is the tangent of the Lagrangian λ · E[cost]; prices are constants between two calls of
    ``reprice_``, and at any moment this is an ordinary Pyro program of one group. Everything that changes is
    a buffer, and travels with the gated model's state.

    Args:
        network: the dense network.
        inclusion_prob: group → (group.size,), q(z = 1) to begin with.
        multipliers: (2,), λ in nats per share of the dense MACs and parameters, ≥ 0.
        budget: (2,), shares of the dense MACs and parameters that the network shall keep, NaN where there is
            no budget; None where multipliers stay as they are.
        layers: factor on the prices of whole sections.
        kinds: which groups a budget holds to the same size, and to which sizes; none where any will do.

    Attributes:
        log_multipliers: (2,), log λ; −∞ where a cost has no price.
        prices: (units of all groups,), nats.
        start: (2,), expected shares under ``inclusion_prob``.
        smoothed: (units of all groups,), running mean of the prices over past gate steps, as the gates'
            optimiser smooths its gradients; without correction for its start.
        moves: scalar, gate steps so far.
        budget: as given.
        kinds: as given.
    """

    log_multipliers: Tensor
    prices: Tensor
    factors: Tensor
    dense: Tensor
    start: Tensor
    smoothed: Tensor
    moves: Tensor
    budget: Tensor | None

    def __init__(
        self,
        network: Costed,
        inclusion_prob: Mapping[str, Tensor],
        multipliers: Tensor,
        budget: Tensor | None = None,
        layers: float = 1.0,
        kinds: Sequence[Kind] = (),
    ) -> None:
        super().__init__()
        self.kinds = tuple(kinds)
        self._sizes = {group.name: group.size for group in network.groups}
        factors = [torch.full((g.size,), layers if g.optional else 1.0).double() for g in network.groups]
        self.register_buffer("factors", torch.cat(factors), persistent=False)
        dense = torch.tensor([network.macs(), network.parameter_count()], dtype=torch.double)
        self.register_buffer("dense", dense)
        self.register_buffer("log_multipliers", multipliers.double().log())
        self.register_buffer("prices", torch.full((sum(self._sizes.values()),), LEAST_PRICE).double())
        self.register_buffer("smoothed", torch.zeros_like(self.prices))
        self.register_buffer("moves", torch.zeros((), dtype=torch.long))
        self.register_buffer("budget", budget)
        costs = ExpectedCost(network)
        self.register_buffer("start", self.shares(costs, torch.cat(list(inclusion_prob.values()))))
        self.reprice_(costs, torch.cat(list(inclusion_prob.values())))

    @property
    def multipliers(self) -> dict[str, float]:
        """λ: nats for the whole dense network's MACs, and for all of its parameters."""
        return dict(zip(KINDS, self.log_multipliers.exp().tolist(), strict=True))

    # ---- a prior of one group

    def forward(self, group: Group) -> Gates:
        """Sample 'pi/<group>'; the gates of the group given it, event shape (group.size,)."""
        return Gates(logits=sample_logits(group, self.prices_of(group)))

    def guide(self, group: Group, inclusion_prob: Tensor) -> None:
        """Put 'pi/<group>' at its best point given q(gates) = Bern(inclusion_prob)."""
        sample_best(group, inclusion_prob, self.prices_of(group))

    def penalty(self, group: Group, inclusion_prob: Tensor) -> Tensor:
        """The price of the expected units, with the exact constant: scalar, nats."""
        return flat_penalty(group, inclusion_prob, self.prices_of(group))

    def price(self, group: Group) -> float:
        """Mean price of the group's units now, in nats."""
        return float(self.prices_of(group).mean())

    def prices_of(self, group: Group) -> Tensor:
        """(group.size,), nats for each original unit now; ``LEAST_PRICE`` for removed ones."""
        return self._split(self.prices)[group.name]

    # ---- prices from cost

    def shares(self, costs: ExpectedCost, inclusion_prob: Tensor) -> Tensor:
        """(2,), expected MACs and parameters as shares of the dense network's.

        Args:
            costs: of the network as it is now.
            inclusion_prob: (units of all groups,), float64.
        """
        expected = costs(self._split(inclusion_prob))
        return torch.stack([expected.macs, expected.parameters]) / self.dense

    def slopes(self, costs: ExpectedCost, inclusion_prob: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The expected shares, and what each unit adds to their weighted sum.

        Args:
            costs: of the network as it is now.
            inclusion_prob: (units of all groups,), θ.
            weights: (2,), of MACs and parameters.

        Returns:
            (2,) shares, and (units of all groups,) ∂(weights · shares)/∂θ, zero for removed units.
        """
        with torch.enable_grad():
            theta = inclusion_prob.detach().double().requires_grad_()
            shares = self.shares(costs, theta)
            (slope,) = torch.autograd.grad(weights @ shares, theta)
        return shares.detach(), slope

    def reprice_(self, costs: ExpectedCost, inclusion_prob: Tensor) -> None:
        """Set the prices to λ times what each unit adds now.

        Args:
            costs: of the network as it is now.
            inclusion_prob: (units of all groups,), θ.
        """
        _, slope = self.slopes(costs, inclusion_prob, self.log_multipliers.exp())
        self.prices.copy_((slope * self.factors).clamp_min(LEAST_PRICE))

    def count_(self, momentum: float) -> None:
        """Note that gates are about to move under these prices.

        Args:
            momentum: weight of the past in the gates' smoothed gradient.
        """
        self.smoothed.mul_(momentum).add_(self.prices, alpha=1 - momentum)
        self.moves += 1

    def evidence(self, velocity: Tensor, momentum: float) -> Tensor:
        """What each unit saves: the part of the gates' smoothed gradient that no price asked for.

        Args:
            velocity: (units of all groups,), smoothed ∂J/∂θ, nats.
            momentum: weight of the past in it.

        Returns:
            (units of all groups,), nats, corrected for the smoothing's start; zeros before the first step.
        """
        weight = 1 - momentum ** int(self.moves)
        return (self.smoothed - velocity.double()) / (weight or 1.0)

    def _split(self, flat: Tensor) -> dict[str, Tensor]:
        return dict(zip(self._sizes, flat.split(list(self._sizes.values())), strict=True))

    def extra_repr(self) -> str:
        """Multipliers, and the budget where there is one."""
        lambdas = ", ".join(f"{kind}={value:.4g}" for kind, value in self.multipliers.items() if value)
        if self.budget is None:
            return f"nats per share: {lambdas}"
        asked = zip(KINDS, self.budget.tolist(), strict=True)
        return f"budget: {', '.join(f'{k}={b:g}' for k, b in asked if b == b)}; nats per share: {lambdas}"
