"""A budget instead of prices: the share of the dense network's cost that shall be left."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bayesprune.errors import PriorError
from bayesprune.priors.cost_gates import KINDS, CostGates
from bayesprune.structure import Costed, ExpectedCost, minimal_masks
from bayesprune.structure.groups import Group

FIRST_NATS_PER_ROW = 0.01
"""What the whole budget costs in the first gate step, for each training row: next to nothing."""


@dataclass(frozen=True)
class Budget:
    r"""Gates whose prices are found during the fit, so that the network ends at its budget.

    .. math:: \min_{q} \; -\mathrm{ELBO}(q) \quad \text{such that} \quad
              \mathbb{E}_\theta[\mathrm{cost}_k] \le b_k \cdot \mathrm{dense\ cost}_k

    With λ_k the multiplier of the constraint in nats per share of cost, unit u has the price
    Σ_k λ_k ∂E[cost_k]/∂θ_u / dense cost_k, recomputed as the network shrinks; ``fit`` finds λ by dual ascent,
    while its aim sinks from the cost at the start to the budget. The network stays above its budget until its
    gates are decided; then units go, the least evidence for its cost first, until it is met: below it, and
    within 2 % of it where the sizes of the units allow that (a ``BudgetWarning`` says where they do not).

    Complexity-aware prices: Guenter & Sideris, arXiv 2411.09127 (abstract). The Lagrangian of
    a budget, its closed-form slopes and the dual ascent are derived here.

    Args:
        macs: share of the dense multiply-accumulates to keep, in (0, 1].
        params: share of the dense parameters to keep, in (0, 1]. Give either, or both: then both hold, and
            the one that is harder to meet decides.

    Raises:
        PriorError: no share, or one that is no number in (0, 1]; used without ``gate()``; or, in ``gate()``,
            a share below the least that one unit in each group needs.

    Example:
        >>> import torch
        >>> import bayesprune as bp
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> gated = bp.gate(
        ...     network, torch.zeros(1, 4), prior=bp.Budget(macs=0.5), likelihood=bp.Categorical(rows=100)
        ... )
        >>> gated.gate_prior(gated.groups[1]).event_shape
        torch.Size([8])
    """

    macs: float | None = None
    params: float | None = None

    def __post_init__(self) -> None:
        given = {kind: getattr(self, kind) for kind in KINDS if getattr(self, kind) is not None}
        wrong = [f"{kind}={share!r}" for kind, share in given.items() if not _is_share(share)]
        if wrong or not given:
            raise PriorError(
                f"A Budget is a share of the dense network's cost, above 0 and at most 1, and got "
                f"{', '.join(wrong) or 'none'}: write for example Budget(macs=0.1), or Budget(params=0.05)."
            )

    def __call__(self, group: Group) -> Any:
        """Complain: a budget speaks of a whole network, and only ``gate()`` can show it one."""
        raise PriorError(
            f"{self!r} was asked for the gates of group {group.name!r} alone, and has to see the whole "
            "network: pass it as it is, bp.gate(network, example, prior=bp.Budget(...), likelihood=...)."
        )

    def bind(self, network: Costed, inclusion_prob: Mapping[str, Tensor], rows: int) -> CostGates:
        """The prior of one network, with λ at its first value.

        Args:
            network: the dense network.
            inclusion_prob: group → (group.size,), q(z = 1) to begin with.
            rows: training rows.

        Raises:
            PriorError: the budget is below what the smallest network costs.
        """
        shares = [math.nan if getattr(self, k) is None else float(getattr(self, k)) for k in KINDS]
        budget = torch.tensor(shares, dtype=torch.double)
        dense = torch.tensor([network.macs(), network.parameter_count()], dtype=torch.double)
        check_feasible(network, dense, budget)
        first = (FIRST_NATS_PER_ROW * rows / budget).nan_to_num(0.0)
        return CostGates(network, inclusion_prob, first, budget)


def check_feasible(network: Costed, dense: Tensor, budget: Tensor, least: int = 1) -> None:
    """Refuse a budget that no network cut from this one can meet.

    Args:
        network: as it is now.
        dense: (2,), MACs and parameters of the dense network.
        budget: (2,), shares of MACs and parameters, NaN where there is none.
        least: units that every group keeps.

    Raises:
        PriorError: the least possible share is larger; it is named.
    """
    kept = {name: mask.double() for name, mask in minimal_masks(network, least).items()}
    smallest = ExpectedCost(network)(kept)
    possible = (torch.stack([smallest.macs, smallest.parameters]) / dense.cpu()).tolist()
    wrong = [
        f"{kind}={asked:g} (at least {_round_up(share):g})"
        for kind, asked, share in zip(KINDS, budget.tolist(), possible, strict=True)
        if share > asked
    ]
    if wrong:
        units = "one unit" if least == 1 else f"{least} units"
        groups = ", ".join(repr(group.name) for group in network.groups)
        raise PriorError(
            f"Budget {', '.join(wrong)} cannot be met: with {units} left in each of the groups {groups} this "
            "network still costs the share in brackets. Ask for no less, or take fewer groups out with "
            "exclude=."
        )


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


def _round_up(share: float) -> float:
    """To three digits, upwards: what the message names must itself be possible."""
    unit = 10.0 ** (math.floor(math.log10(share)) - 2)
    return math.ceil(share / unit) * unit
