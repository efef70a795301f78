"""Gates whose prices follow from what the network costs: λ nats for each share of its MACs or parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from bayesprune.priors.gates import Gates
from bayesprune.priors.measured import Measured
from bayesprune.priors.unit_prices import flat_penalty, sample_best, sample_logits
from bayesprune.structure import Costed, ExpectedCost
from bayesprune.structure.groups import Group
from bayesprune.structure.kinds import Kind

KINDS = ("macs", "params")
"""What is counted, in the order in which every tensor of this room has it; what is measured comes after."""

DENSE, LEAST, END = range(3)
"""Columns of what was seen: of the dense network, of the smallest one, and of the one that came out."""

LEAST_PRICE = 1e-3
"""Nats: a price under it is no price; removed units have none either."""


class CostGates(nn.Module):
    r"""Bernoulli gates under a flattening hyper-prior; a unit's price is λ times what it adds to the cost.

    .. math:: \mathrm{price}_u = \sum_k \lambda_k\, \frac{\partial}{\partial \theta_u}
              \frac{\mathbb{E}_\theta[\mathrm{cost}_k]}{\mathrm{dense\ cost}_k},
              \qquad k \in \{\mathrm{MACs}, \mathrm{parameters}\}

    and time and memory by their models (``Measured``), where these have a limit.

    So Σ price_u θ_u is the tangent of the Lagrangian λ · E[cost]; prices are constants between two calls of
    ``reprice_``, and at any moment this is an ordinary Pyro program of one group. Everything that changes is
    a buffer, and travels with the gated model's state.

    Args:
        network: the dense network.
        inclusion_prob: group → (group.size,), q(z = 1) to begin with.
        multipliers: (costs,), λ in nats per share of the dense MACs and parameters, ≥ 0, and of what is
            measured.
        budget: (costs,), shares of the dense MACs and parameters, and of what is measured by its model, that
            the network shall keep, NaN where there is no budget; None where multipliers stay as they are.
        layers: factor on the prices of whole sections.
        kinds: which groups a budget holds to the same size, and to which sizes; none where any will do.
        measured: limits in milliseconds and megabytes; None where there are none.

    Attributes:
        log_multipliers: (costs,), log λ; −∞ where a cost has no price.
        prices: (units of all groups,), nats.
        start: (costs,), expected shares under ``inclusion_prob``.
        smoothed: (units of all groups,), running mean of the prices over past gate steps, as the gates'
            optimiser smooths its gradients; without correction for its start.
        moves: scalar, gate steps so far.
        budget: as given.
        kinds: as given.
        measured: as given.
        table: (operations,), milliseconds of each in the dense network; zero before they were measured.
        whole: (measured kinds,), what the dense network takes by the models, in their units.
        seen: (measured kinds, 3), measured milliseconds and megabytes of the dense network, of the smallest
            one, and of the one that came out; NaN before.
        begun: scalar, bool: whether that was measured which a fit measures before its first step.
    """

    log_multipliers: Tensor
    prices: Tensor
    factors: Tensor
    dense: Tensor
    start: Tensor
    smoothed: Tensor
    moves: Tensor
    budget: Tensor | None
    table: Tensor
    whole: Tensor
    seen: Tensor
    begun: Tensor

    def __init__(
        self,
        network: Costed,
        inclusion_prob: Mapping[str, Tensor],
        multipliers: Tensor,
        budget: Tensor | None = None,
        layers: float = 1.0,
        kinds: Sequence[Kind] = (),
        measured: Measured | None = None,
    ) -> None:
        super().__init__()
        self.kinds, self.measured = tuple(kinds), measured
        if measured is not None:
            self.register_buffer("table", torch.zeros(len(measured.operations)).double())
            self.register_buffer("whole", measured.whole(self.table))
            self.register_buffer("begun", torch.zeros((), dtype=torch.bool))
            self.register_buffer("seen", torch.full((len(measured.kinds), 3), torch.nan).double())
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
        costs = ExpectedCost(self.costed(network))
        self.register_buffer("start", self.shares(costs, torch.cat(list(inclusion_prob.values()))))
        self.reprice_(costs, torch.cat(list(inclusion_prob.values())))

    @property
    def names(self) -> tuple[str, ...]:
        """Of all costs."""
        return KINDS if self.measured is None else (*KINDS, *self.measured.kinds)

    @property
    def multipliers(self) -> dict[str, float]:
        """λ: nats for the whole dense network's MACs, for all of its parameters, its time and its memory."""
        return dict(zip(self.names, self.log_multipliers.exp().tolist(), strict=True))

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
        """(costs,), expected MACs and parameters as shares of the dense network's; so time and memory.

        Args:
            costs: of the network as it is now, ``costed``.
            inclusion_prob: (units of all groups,), float64.
        """
        expected = costs(self._split(inclusion_prob))
        counted = torch.stack([expected.macs, expected.parameters]) / self.dense
        if self.measured is None:
            return counted
        whole = self.whole.clamp_min(1.0)  # there is no time before it was measured
        return torch.cat([counted, self.measured.of_model(expected.more) / whole])

    def costed(self, network: Costed) -> Costed:
        """A network with all of its costs.

        Args:
            network: as it is now.
        """
        return network if self.measured is None else self.measured.costed(network, self.table)

    def limits(self, scale: Tensor | None = None) -> Tensor:
        """(2 + columns of ``Term.more``,), what costs may be at the most; infinity where there is no budget.

        Args:
            scale: (costs,), factors on the budgets.
        """
        assert self.budget is not None
        allowed = self.budget.nan_to_num(torch.inf) * (1.0 if scale is None else scale.to(self.budget))
        counted = self.dense * allowed[: len(KINDS)]
        if self.measured is None:
            return counted
        more = self.whole * allowed[len(KINDS) :]
        return torch.cat([counted, more[self.measured.kind_of().to(more.device)]])

    def slopes(self, costs: ExpectedCost, inclusion_prob: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The expected shares, and what each unit adds to their weighted sum.

        Args:
            costs: of the network as it is now.
            inclusion_prob: (units of all groups,), θ.
            weights: (costs,), of each.

        Returns:
            (costs,) shares, and (units of all groups,) ∂(weights · shares)/∂θ, zero for removed units.
        """
        with torch.enable_grad():
            theta = inclusion_prob.detach().double().requires_grad_()
            shares = self.shares(costs, theta)
            (slope,) = torch.autograd.grad(weights @ shares, theta)
        return shares.detach(), slope

    def free_(self, name: str) -> None:
        """Let a cost have neither a budget nor a price.

        Args:
            name: of ``names``.
        """
        assert self.budget is not None
        self.budget[self.names.index(name)] = torch.nan
        self.log_multipliers[self.names.index(name)] = -torch.inf

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
        return f"budget: {self.told()}; nats per share: {lambdas}"

    def told(self) -> str:
        """What was asked for, in words."""
        shares = [] if self.budget is None else self.budget[: len(KINDS)].tolist()
        asked = [f"{k}={b:g}" for k, b in zip(KINDS, shares, strict=True) if b == b]
        if self.measured is not None:
            limits = zip(self.measured.kinds, self.measured.limits, strict=True)
            asked += [f"{k}={limit:g}" for k, limit in limits] + [f"batch={self.measured.batch}"]
        return ", ".join(asked)
