"""The flattening hyper-prior on the inclusion probability of each unit, with its posterior in closed form.

Prior inclusion probabilities of e^-200 are ordinary here (a price of 200 nats) and would be zero in float32,
which would make a gate that is on impossible. So the guide holds them in double precision whatever the
network uses; their scores, and the log-odds that the gates get, are in the network's precision again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesprune.errors import PriorError
from bayesprune.priors.checks import checked, positive
from bayesprune.priors.flattening import FlatteningDistribution
from bayesprune.priors.gates import log_odds
from bayesprune.priors.naming import Table, by_name
from bayesprune.structure.groups import Group


@dataclass(frozen=True)
class Flattening:
    r"""One flattening hyper-prior per unit: a fixed price in nats for each unit that is kept.

    Site ``'pi/<group>'`` ~ :class:`~bayesprune.priors.FlatteningDistribution`, (size,). Its best point
    estimate given q(gates) = Bern(θ) has logit π* = logit θ - price, and there the whole prior side is

    .. math:: \mathrm{penalty}(\theta) = \mathrm{price} \cdot \sum_i \theta_i
              + K (\log \mathrm{price} - \log(e^{\mathrm{price}} - 1)).

    A unit is therefore kept exactly when it saves more than its price of the training set's total negative
    log-likelihood (Guenter & Sideris, arXiv 2205.04650; identity derived here and tested).

    The Pyro program needs e^-price to be a double, so up to about 700 nats; ``penalty`` has no such limit.

    Args:
        price: nats for one unit, > 0; or a table by group name or glob pattern, such as
            ``{"conv*": 60.0, "*": 8.0}``.

    Raises:
        PriorError: a price that is not a positive finite number, or (when used) no price for a group.

    Example:
        >>> import torch
        >>> from bayesprune.priors import Flattening
        >>> from bayesprune.structure.groups import Group
        >>> hyper, group = Flattening(price={"conv*": 60.0, "*": 8.0}), Group("fc1", size=2)
        >>> one, none = torch.tensor([1.0, 0.0]), torch.zeros(2)
        >>> round((hyper.penalty(group, one) - hyper.penalty(group, none)).item(), 4)
        8.0
    """

    price_table: Mapping[str, float] = field(init=False)

    def __init__(self, price: float | Mapping[str, float]) -> None:
        table = dict(price) if isinstance(price, Mapping) else {"*": price}
        wrong = [f"'{name}': {value!r}" for name, value in table.items() if not positive(value)]
        if wrong or not table:
            raise PriorError(
                f"A price is a positive finite number of nats, and got {', '.join(wrong) or 'no price'}: "
                "raise it, or list the group in exclude= to keep all of its units."
            )
        object.__setattr__(self, "price_table", {name: float(value) for name, value in table.items()})

    def __repr__(self) -> str:
        table = dict(self.price_table)
        return f"Flattening(price={table['*'] if table.keys() == {'*'} else table})"

    def price(self, group: Group) -> float:
        """Nats for each unit of this group, whatever the others do."""
        return by_name(self.price_table, group.name, "price")

    def tables(self) -> Iterator[Table]:
        """The prices, in which ``gate`` finds a name that no group has."""
        yield "the table of prices", self.price_table

    def logits(self, group: Group) -> Tensor:
        """Sample 'pi/<group>'; (..., group.size), its log-odds."""
        price = torch.full((group.size,), self.price(group))
        hyper = FlatteningDistribution(price).to_event(1)  # type: ignore[no-untyped-call]
        prior_inclusion = pyro.sample(f"pi/{group.name}", hyper)
        return log_odds(prior_inclusion)

    def guide(self, group: Group, inclusion_prob: Tensor) -> None:
        """Put 'pi/<group>' at π*, a point mass.

        It is detached: at the minimum the gradient through π* is zero on average, so only noise is lost.
        """
        theta = checked(group, inclusion_prob).detach()
        best = torch.sigmoid(theta.log() - torch.log1p(-theta) - self.price(group))
        pyro.sample(f"pi/{group.name}", point_mass(best, like=inclusion_prob))

    def penalty(self, group: Group, inclusion_prob: Tensor) -> Tensor:
        """The price of the expected number of units, with the exact constant: scalar, nats."""
        theta, price = checked(group, inclusion_prob), self.price(group)
        log_peak = price + math.log(-math.expm1(-price) / price)  # log((γ - 1) / log γ)
        return (theta.sum() * price - group.size * log_peak).to(inclusion_prob.dtype)


def point_mass(value: Tensor, like: Tensor) -> dist.Delta:
    """A point mass at probabilities in double precision.

    Args:
        value: (units,), float64, in [0, 1].
        like: a tensor of the precision that it is scored in.
    """
    value = value.clamp_min(torch.finfo(value.dtype).tiny)
    return _Point(value, log_density=like.new_zeros(()), event_dim=1)  # type: ignore[no-untyped-call]


class _Point(dist.Delta):
    """A point mass at a double-precision value, scored in the precision of its ``log_density``."""

    def log_prob(self, x: Tensor) -> Tensor:
        in_double: Tensor = super().log_prob(x)  # type: ignore[no-untyped-call]
        return in_double.to(self.log_density.dtype)
