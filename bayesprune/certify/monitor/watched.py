"""One risk of a monitored certificate: capital bet against its level, and what bounds it from below."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bayesprune.certify.losses import loss_from
from bayesprune.certify.monitor.bets import advance, first_capital, log_wealth
from bayesprune.certify.monitor.running import lower_bound, moments
from bayesprune.certify.pvalues import Array
from bayesprune.certify.size import percent


@dataclass(frozen=True)
class Watched:
    """What is kept of one risk: of constant size, whatever the length of the stream.

    Attributes:
        loss: what it is the mean of, as plain values.
        alpha: the level that was certified, and what was allowed above it.
        rows: that counted so far.
        total: sum of their losses.
        squares: sum of the squares of what each added to what was foreseen.
        log_capital: (24,), nats, of each stake against the level.
    """

    loss: dict[str, Any]
    alpha: float
    rows: int = 0
    total: float = 0.0
    squares: float = 0.0
    log_capital: tuple[float, ...] = field(
        default_factory=lambda: tuple(first_capital().tolist()), repr=False
    )

    def after(self, losses: Array, level: float) -> tuple[Watched, Array]:
        """The same after some more rows that count, and the wealth after each, (rows,), nats.

        Args:
            losses: (rows,), in [0, 1].
            level: of their mean.
        """
        if not len(losses):
            return self, np.zeros(0)
        capital = advance(np.array(self.log_capital), self.rows, losses, level)
        sums, squares = moments(self.total, self.rows, losses)
        wealth = log_wealth(capital, np.arange(self.rows + 1, self.rows + len(losses) + 1, dtype=np.float64))
        rows, total = self.rows + len(losses), float(sums[-1])
        kept = tuple(capital[-1].tolist())
        found = replace(
            self, rows=rows, total=total, squares=self.squares + float(squares[-1]), log_capital=kept
        )
        return found, wealth

    @property
    def log_wealth(self) -> float:
        """Nats, of all stakes and the cash."""
        return float(log_wealth(np.array(self.log_capital), self.rows))

    @property
    def risk(self) -> float:
        """The mean over the rows that counted; NaN where none did."""
        return self._in_units(self.total / self.rows) if self.rows else math.nan

    def lower_bound(self, delta: float) -> float:
        """Below the running risk, at all times at once with probability 1 − delta; −∞ of no row."""
        if not self.rows:
            return -math.inf
        total, squares, rows = (
            np.array(value, dtype=np.float64) for value in (self.total, self.squares, self.rows)
        )
        return self._in_units(float(lower_bound(total, squares, rows, delta)))

    def told(self, delta: float) -> str:
        """Level, running risk and bound, in a line."""
        what = f"{_named(self.loss)} ≤ {percent(self.alpha)}"
        if not self.rows:
            return f"{what}: no row counted yet"
        low = f"with probability {percent(1 - delta)} above {percent(round(self.lower_bound(delta), 5))}"
        return f"{what}: {percent(round(self.risk, 5))} of {self.rows:,} rows, {low}"

    def _in_units(self, mean: float) -> float:
        """A mean of values in [0, 1] as the loss tells risks: its level is a straight line of alpha."""
        if self.loss["name"] == "own":
            return mean
        loss = loss_from(self.loss)
        return (mean - loss.level(0.0)) / (loss.level(1.0) - loss.level(0.0))


def _named(loss: dict[str, Any]) -> str:
    own = str(loss.get("function", loss["name"]))
    return f"{_named(loss['loss'])} of class {loss['label']}" if "label" in loss else own
