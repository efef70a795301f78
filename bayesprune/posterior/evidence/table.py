"""Price and evidence of units as a value: columns of numbers, a printed table."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

Array = npt.NDArray[np.float64]
SHOWN, WIDTH = 20, 100


@dataclass(frozen=True)
class EvidenceTable:
    """One row for every unit that is still there; all columns have as many entries, in the model's order.

    Attributes:
        group: name of each unit's group.
        unit: its number in the dense group.
        inclusion: q(z = 1), a probability.
        price: what the prior charges for it, nats.
        estimate: what it saves of the training set's negative log-likelihood, estimated, nats.
        estimate_error: Monte-Carlo standard error of that, nats; it does not count the estimator's bias.
        exact: the same by leaving the unit out, nats; NaN where not asked for.
        exact_error: Monte-Carlo standard error of that, nats; 0 where nothing is drawn.
        removed: group → units that are gone, of which nothing can be said.
        conditions: in words, what the gains condition on.
    """

    group: npt.NDArray[np.str_]
    unit: npt.NDArray[np.int64]
    inclusion: Array
    price: Array
    estimate: Array
    estimate_error: Array
    exact: Array
    exact_error: Array
    removed: Mapping[str, int]
    conditions: str

    @property
    def gain(self) -> Array:
        """(units,), nats: exact where asked for, else estimated."""
        return np.where(np.isnan(self.exact), self.estimate, self.exact)

    @property
    def gain_error(self) -> Array:
        """(units,), nats: Monte-Carlo standard error of ``gain``."""
        return np.where(np.isnan(self.exact), self.estimate_error, self.exact_error)

    @property
    def margin(self) -> Array:
        """(units,), nats: gain − price; a unit pays for itself where this is positive."""
        return self.gain - self.price

    def nearest(self, count: int = SHOWN) -> npt.NDArray[np.int64]:
        """Places of the units nearest to the line gain = price, the nearest first.

        Args:
            count: how many at most.
        """
        return np.argsort(np.abs(self.margin), kind="stable")[:count]

    def to_dataframe(self) -> Any:
        """A ``pandas.DataFrame``, a row a unit, indexed by group and unit; pandas comes with xarray."""
        columns = {
            "inclusion": self.inclusion, "price": self.price, "estimate": self.estimate,
            "estimate_error": self.estimate_error, "exact": self.exact, "exact_error": self.exact_error,
            "margin": self.margin,
        }  # fmt: skip
        data = xr.Dataset({name: ("row", values) for name, values in columns.items()})
        data = data.assign(group=("row", self.group), unit=("row", self.unit))
        return data.to_dataframe().set_index(["group", "unit"])[list(columns)]

    def describe(self, count: int = SHOWN) -> str:
        """The units nearest to the line as a table for a terminal.

        Args:
            count: how many.
        """
        width = max([len("group"), *(len(name) for name in self.group)], default=5)
        heading = f"{'group':<{width}} {'unit':>5} {'q(z=1)':>7} {'price':>9} {'estimated gain':>17}"
        lines = [f"{heading} {'exact gain':>17} {'gain−price':>11}"]
        for i in self.nearest(count):
            lines.append(
                f"{self.group[i]:<{width}} {self.unit[i]:5d} {self.inclusion[i]:7.3f} {self.price[i]:9.4g} "
                f"{_with_error(self.estimate[i], self.estimate_error[i])} "
                f"{_with_error(self.exact[i], self.exact_error[i])} {self.margin[i]:11.3g}"
            )
        return "\n".join([*lines, *(textwrap.fill(note, WIDTH) for note in self._notes(count))])

    def _notes(self, count: int) -> list[str]:
        total, cheap = len(self.unit), int((self.margin < 0).sum())
        notes = [
            f"{min(count, total)} of {total} units, nearest to the line gain = price first; {cheap} of all "
            f"{total} save less than their price. Nats; ± is the Monte-Carlo standard error.",
            self.conditions,
        ]
        gone = ", ".join(f"{n} of {name!r}" for name, n in self.removed.items() if n)
        return [*notes, f"Removed, so that nothing can be said of them: {gone}."] if gone else notes

    def __str__(self) -> str:
        return self.describe()

    def __len__(self) -> int:
        return len(self.unit)


def _with_error(value: float, error: float) -> str:
    if np.isnan(value):
        return f"{'':>17}"
    return f"{value:9.4g} ± {error:<5.2g}" if np.isfinite(error) and error > 0 else f"{value:9.4g}{'':8}"
