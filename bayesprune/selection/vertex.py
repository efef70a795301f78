"""FlatteningVertex: a unit stays where it saves more nats than it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from bayesprune.errors import SelectionError
from bayesprune.gated.dead import median_units
from bayesprune.priors.naming import by_name
from bayesprune.selection.descent import GainRule
from bayesprune.selection.masks import Scores
from bayesprune.selection.subject import Subject
from bayesprune.structure.naming import check_names, check_order


@dataclass(frozen=True, eq=False)
class FlatteningVertex(GainRule):
    r"""The vertex of the flattening objective, for weights as they are: gain > price.

    .. math:: J(m) = N L(m) + \sum_u \mathrm{price}_u\, m_u

    Under the flattening hyper-prior (Guenter & Sideris, arXiv 2205.04650) the objective is multilinear in the
    inclusion probabilities, so that for given weights a minimiser is a mask. How it is sought, and what is
    found, is told at ``GainRule``. With a ``price`` it prunes a trained network as well.

    Attributes:
        price: nats a unit, one for all or by group name or glob; by default what the posterior's prior
        charges.
    """

    price: float | Mapping[str, float] | None = None

    def line(self, subject: Subject) -> Scores:
        """group → (size,), prices, nats.

        Raises:
            SelectionError: no price is known for a group, or one that is no number from 0 up.
        """
        if self.price is None:
            return prior_prices(subject)
        table = self.price if isinstance(self.price, Mapping) else {"*": self.price}
        names = [group.name for group in subject.groups]
        check_names("price", table, names, error=SelectionError)
        check_order("price", list(table), names, SelectionError)
        prices = {group.name: by_name(table, group.name, "price") for group in subject.groups}
        wrong = [f"{name}: {price!r}" for name, price in prices.items() if not 0 <= price < math.inf]
        if wrong:
            raise SelectionError(f"{self.name}: a price is 0 nats or more, and not {', '.join(wrong)}.")
        return {g.name: torch.full((g.size,), float(prices[g.name])).double() for g in subject.groups}


def prior_prices(subject: Subject) -> Scores:
    """group → (size,), by how much the prior side of the objective grows with a unit, nats; 0 if removed.

    The other units are at θ > ½. For a flattening prior it is its price, log γ; for others see
    ``bayesprune.posterior.evidence``, whose prices they are.

    Args:
        subject: with a posterior.

    Raises:
        SelectionError: there is no posterior.
    """
    from bayesprune.posterior.evidence.prices import unit_prices  # here: ArviZ takes long to import

    gated = subject.posterior
    prices = unit_prices(gated, median_units(gated).to(gated.log_odds.dtype))
    alive = gated.alive.cpu()
    return dict(gated.by_group(torch.where(alive, prices, torch.zeros_like(prices))))
