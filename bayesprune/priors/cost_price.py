"""Price: builders of prices from what a network costs, counted or measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bayesprune.errors import PriorError
from bayesprune.priors.checks import positive
from bayesprune.priors.cost_gates import CostGates
from bayesprune.priors.latency import Latency, measure_latency
from bayesprune.structure import Costed
from bayesprune.structure.groups import Group
from bayesprune.structure.timing import Timer


@dataclass(frozen=True)
class CostPrice:
    r"""Gates priced by what they add to the network's cost, at a fixed rate: see ``Price.from_cost``.

    Args:
        nats: ν, nats for the whole dense network, > 0.
        compute: κ, in [0, 1]: 1 prices MACs alone, 0 parameters alone.
        layers: ρ, > 0: the factor on the prices of whole sections.
    """

    nats: float
    compute: float
    layers: float = 1.0

    def __post_init__(self) -> None:
        is_share = isinstance(self.compute, int | float) and 0 <= self.compute <= 1
        fine = positive(self.nats) and positive(self.layers)
        if not fine or not is_share or isinstance(self.compute, bool):
            raise PriorError(
                f"Price.from_cost(nats={self.nats!r}, compute={self.compute!r}, layers={self.layers!r}): "
                "nats and layers must be positive finite numbers, and compute lie between 0 (parameters "
                "alone) and 1 (MACs alone)."
            )

    def __call__(self, group: Group) -> Any:
        """Complain: the cost is that of a whole network, and only ``gate()`` can show it one."""
        raise PriorError(
            f"{self!r} was asked for the gates of group {group.name!r} alone, and has to see the whole "
            "network: pass it as it is, bp.gate(network, example, prior=bp.Price.from_cost(...), "
            "likelihood=...)."
        )

    def bind(self, network: Costed, inclusion_prob: Mapping[str, Tensor], rows: int) -> CostGates:
        """The prior of one network.

        Args:
            network: the dense network.
            inclusion_prob: group → (group.size,), q(z = 1) to begin with.
            rows: training rows; the price does not depend on them.
        """
        multipliers = self.nats * torch.tensor([self.compute, 1 - self.compute], dtype=torch.double)
        return CostGates(network, inclusion_prob, multipliers, layers=self.layers)


class Price:
    """Where prices come from, when they are not chosen group by group."""

    @staticmethod
    def from_cost(*, nats: float, compute: float = 0.5, layers: float = 1.0) -> CostPrice:
        r"""Prices by cost, with knobs for accuracy against size, compute against parameters, and layers
        against units.

        .. math:: \mathrm{price}_u = \nu \Big[ \kappa \frac{\partial}{\partial\theta_u}
                  \frac{\mathbb{E}[\mathrm{MACs}]}{\mathrm{MACs}_\mathrm{dense}} + (1 - \kappa)
                  \frac{\partial}{\partial\theta_u}
                  \frac{\mathbb{E}[\mathrm{params}]}{\mathrm{params}_\mathrm{dense}} \Big]

        recomputed as the network shrinks, and ρ times that for a whole residual section. Guenter & Sideris
        (arXiv 2411.09127) name these three trade-offs in their abstract; the formula is derived here, not
        read in that paper.

        Args:
            nats: ν, > 0: what the whole dense network costs, in nats of training log-likelihood. A unit that
                adds a hundredth of the cost has to save ν/100 nats.
            compute: κ, in [0, 1]: 1 prices MACs alone, 0 parameters alone.
            layers: ρ, > 0: above 1 whole sections go sooner than units by their cost alone; below 1 later.

        Returns:
            A prior for ``gate(prior=...)``.

        Raises:
            PriorError: a number out of range.

        Example:
            >>> import torch
            >>> import bayesprune as bp
            >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
            >>> prior = bp.Price.from_cost(nats=80.0, compute=1.0)
            >>> likelihood = bp.Categorical(rows=100)
            >>> gated = bp.gate(network, torch.zeros(1, 4), prior=prior, likelihood=likelihood)
            >>> hidden = gated.groups[1]  # each of its 8 units: 0.9 · 4 in, 4 out, of 64 MACs
            >>> round(gated.prior.price(hidden), 3)
            9.5
        """
        return CostPrice(nats, compute, layers)

    @staticmethod
    def latency(
        network: nn.Module,
        example: Tensor,
        device: str | torch.device = "cpu",
        *,
        rounding: int | Mapping[str, int] = 8,
        timer: Timer | None = None,
        exclude: Iterable[str] = (),
    ) -> Latency:
        """Measure what a unit of each group costs in time: multiply-accumulates say little about it.

        The layers that make or read a group's units are timed at about a quarter, a half, three quarters and
        all of its units, rounded up to whole multiples (hardware computes channels in blocks), with all other
        groups whole; a straight line through the shortest times gives milliseconds a unit. In networks that
        are no row of plain layers it is the whole network that is timed, cut to those widths. It is the price
        at the dense network: it does not follow the network as it shrinks.

        Args:
            network: as for ``gate()``; it is copied.
            example: (rows, ...), the batch that is timed: its number of rows matters.
            device: where.
            rounding: units that are computed together, one number or by group name or glob.
            timer: milliseconds of one pass of a layer over an input; by default the shortest of 15.
            exclude: names or globs of groups to leave whole, as for ``gate()``.

        Returns:
            The times; ``latency.flattening(nats_per_millisecond)`` makes a hyper-prior of them.

        Raises:
            UnsupportedNetworkError: as in ``gate()``.
            PriorError: a rounding that is no whole number of units.

        Warns:
            LatencyWarning: fewer units of a group do not take less time; the group and the times are named.

        Example:
            >>> import torch
            >>> import bayesprune as bp
            >>> network = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.Linear(64, 4))
            >>> by_size = lambda layer, x: 0.001 * layer.weight.numel()
            >>> latency = bp.Price.latency(network, torch.zeros(1, 16), timer=by_size)
            >>> round(latency.milliseconds["0"], 4)  # 16 weights in and 4 out
            0.02
            >>> hyper = latency.flattening(nats_per_millisecond=100.0)
            >>> {group: round(nats, 4) for group, nats in hyper.price_table.items()}
            {'input': 6.4, '0': 2.0}
        """
        return measure_latency(network, example, device, rounding=rounding, timer=timer, exclude=exclude)
