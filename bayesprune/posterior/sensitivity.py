"""How a posterior's size moves with the power of its price, and of its likelihood, as a value."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Base = Literal["posterior", "guide"]
THRESHOLD = 0.05
"""Of the distance for each doubling (Kallioinen et al. 2023)."""
HALF, TENTH = 0.5, 0.1
"""A unit, and a share of the mean MACs: what moves by less for a doubling stands still."""
MACS = "MACs"
CONFLICT, STRONG, FINE = "price against data", "strong price, weak data", "–"
WIDTH = 110


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """How one quantity moves with the power of the price, and of the likelihood.

    Attributes:
        name: a group, whose units that are open are counted; ``"all units"``, or ``"MACs"``.
        mean: under the posterior, units, or percent of the dense MACs.
        price: cumulative Jensen–Shannon distance for each doubling of the price, from 0.
        likelihood: the same of the likelihood.
        price_change: slope of the mean in log₂ α, at one: units, or percent of the dense MACs.
        likelihood_change: the same of the likelihood.
        unit_price: (units,), of each gate of the group, the distance as in ``price``; empty of the others.
        unit_likelihood: the same of the likelihood.
    """

    name: str
    mean: float
    price: float
    likelihood: float
    price_change: float
    likelihood_change: float
    unit_price: Array
    unit_likelihood: Array

    @property
    def diagnosis(self) -> str:
        """What both say together.

        ``"price against data"`` (a potential prior-data conflict): both move it; the posterior is a
        compromise between them, and another price gives another size. ``"strong price, weak data"``: the
        price alone does. ``"–"``: the price does not, or moves the mean by less than half a unit, or a tenth
        of the MACs, for a doubling.
        """
        least = TENTH * self.mean if self.name == MACS else HALF
        if np.isnan(self.price):
            return "not answered"
        if self.price < THRESHOLD or abs(self.price_change) < least:
            return FINE
        moved = self.likelihood >= THRESHOLD and abs(self.likelihood_change) >= least
        return CONFLICT if moved else STRONG


@dataclass(frozen=True, eq=False)
class PowerScaling:
    """Sensitivities of a posterior's size; NaN where the draws cannot tell.

    Attributes:
        quantities: a group each, all units, and MACs.
        alphas: powers below and above one.
        base: ``"posterior"``, or ``"guide"`` where its draws were taken for it.
        summed: masks that were summed over, which hold all but a negligible part of the posterior; 0 where
            draws were weighed instead, and the next three say how well they can stand for it.
        pareto_k: the largest k̂ of the weights at these powers; NaN where no tail can be fitted.
        limit: of k̂ for so many draws, with so many different values in their tail.
        effective: draws that count, (Σ w)² / Σ w², at the power where these are fewest.
        why_not: why there is no answer; empty if there is.
        conditions: what all of it is conditional on.
    """

    quantities: tuple[Sensitivity, ...]
    alphas: tuple[float, float]
    base: Base
    summed: int
    pareto_k: float
    limit: float
    effective: float
    why_not: str
    conditions: str

    @property
    def answered(self) -> bool:
        """Whether the draws could tell."""
        return not self.why_not

    def __getitem__(self, name: str) -> Sensitivity:
        """A quantity, by its name."""
        found = [each for each in self.quantities if each.name == name]
        if not found:
            raise KeyError(f"{name!r} is none of {[each.name for each in self.quantities]}")
        return found[0]

    def __str__(self) -> str:
        if self.why_not:
            return textwrap.fill(f"Not answered: {self.why_not}", WIDTH)
        wide = max(len(each.name) for each in self.quantities)
        lines = [
            f"{'':{wide}}  {'mean':>7}  {'price':>7}  {'change':>8}  {'data':>7}  {'change':>8}  diagnosis"
        ]
        lines += [
            f"{s.name:{wide}}  {s.mean:7.2f}  {s.price:7.3f}  {s.price_change:+8.2f}  {s.likelihood:7.3f}  "
            f"{s.likelihood_change:+8.2f}  {s.diagnosis}"
            for s in self.quantities
        ]
        notes = [
            f"Distance for a doubling ({THRESHOLD} is much), and by how many units, or percent of the dense "
            "network's MACs, the mean would move.",
            self.conditions,
        ]
        return "\n".join([*lines, *(textwrap.fill(note, WIDTH) for note in notes)])
