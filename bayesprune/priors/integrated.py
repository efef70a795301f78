"""The flattening hyper-prior with its probabilities integrated out, instead of at their best."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from bayesprune.priors.flattening import FlatteningDistribution
from bayesprune.priors.known_rate import KnownRate
from bayesprune.priors.naming import Table
from bayesprune.priors.price import Flattening
from bayesprune.structure.groups import Group


@dataclass(frozen=True, init=False)
class IntegratedFlattening(KnownRate):
    r"""Gates under the flattening hyper-prior, with π integrated out: each is on with the mean of π.

    .. math:: P(z_i = 1) = \int \pi\, p(\pi \mid \gamma)\, d\pi = \frac{1}{\log\gamma} - \frac{1}{\gamma - 1}

    :class:`Flattening` puts the best π in, a type-II maximum, and charges log γ a unit. Integrated, the same
    hyper-prior charges −logit P, about log(log γ − 1) nats: 2.20 at log γ = 10, 2.94 at 20, 4.08 at 60.
    Derived here, and tested by quadrature.

    Args:
        price: log γ in nats, > 0, or a table by group name or glob pattern, as :class:`Flattening` takes it.

    Raises:
        PriorError: a price that is not a positive finite number, or (when used) no price for a group.

    Example:
        >>> from bayesprune.priors import IntegratedFlattening
        >>> from bayesprune.structure.groups import Group
        >>> round(IntegratedFlattening(10.0).price(Group("fc1", size=3)), 2)
        2.2
    """

    flattening: Flattening

    def __init__(self, price: float | Mapping[str, float]) -> None:
        object.__setattr__(self, "flattening", Flattening(price))

    def log_rate(self, group: Group) -> float:
        """Log of the mean of π, < 0."""
        log_gamma = torch.tensor(self.flattening.price(group), dtype=torch.double)
        return math.log(float(FlatteningDistribution(log_gamma).mean))

    def tables(self) -> Iterator[Table]:
        """The prices, in which ``gate`` finds a name that no group has."""
        yield from self.flattening.tables()
