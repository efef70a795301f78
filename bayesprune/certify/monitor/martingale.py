"""Are the rows of a stream exchangeable with those of the calibration? A conformal test martingale."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bayesprune.certify.monitor.exchangeable import checked_scores
from bayesprune.certify.monitor.kept import read_state, write_state
from bayesprune.certify.pvalues import Array
from bayesprune.errors import CertificateError
from bayesprune.ranges import check_seed
from bayesprune.schema import Items, Number, Record, nullable

FORMAT = "bayesprune martingale"
JUMP = 0.01
"""Share of the capital that is dealt out anew before each row."""
EDGE = 1e-12
"""p-values are kept so far from 0 and 1, where rounding would win without bound; no bet gains by that."""
BETS = ("none", "low", "high", "lower by half", "lower by far", "higher by half", "higher by far")


def densities(p: float) -> Array:
    r"""(7,), what each bet pays at a p-value: functions on [0, 1] whose integral is 1.

    .. math:: 1, \quad 1 \mp (p - \tfrac12), \quad \kappa\,p^{\kappa - 1},\;
              \kappa\,(1 - p)^{\kappa - 1} \text{ for } \kappa \in \{\tfrac12, \tfrac15\}

    Args:
        p: in [0, 1]; small where a score is higher than those before.
    """
    powers = [k * x ** (k - 1) for x in (max(p, EDGE), max(1 - p, EDGE)) for k in (0.5, 0.2)]
    return np.array([1.0, 0.5 + p, 1.5 - p, powers[2], powers[3], powers[0], powers[1]])


@dataclass(frozen=True)
class Martingale:
    r"""A capital that grows where a stream's scores are not exchangeable with those before them.

    The n-th score gets the rank among all so far, ties broken by chance,

    .. math:: p_n = \frac{\#\{i : s_i > s_n\} + \theta_n \#\{i : s_i = s_n\}}{n}

    with the calibration's scores first. Where all are exchangeable, these p-values are independent and
    uniform on [0, 1]; bets on any one place lose as much as they win, and the capital, of which a hundredth
    is dealt out anew over seven bets before each row, ever reaches 1/δ with probability δ at most. So the
    stream may be looked at after every row, for ever.

    The value is a state: ``observe`` returns the next one. As for ``exchangeable``, scores are to be those of
    a network that the calibration rows did not choose.

    Attributes:
        delta: how often it may cry without need.
        seed: of what breaks ties.
        calibration: how many scores were there before the stream.
        scores: all scores so far, sorted.
        log_capital: (7,), nats, of each bet.
        highest: nats, of all capital, the most that it ever was.
        found_at: the row of the stream at which 1/δ was first reached; None where it was not.

    Source:
        V. Vovk, I. Nouretdinov & A. Gammerman (2003), Testing exchangeability on-line, ICML; V. Vovk (2021),
        Testing randomness online, Statistical Science 36; jumps between bets: V. Vovk et al. (2021), Retrain
        or not retrain: conformal test martingales for change-point detection, COPA, PMLR 152.

    Example:
        >>> generator = np.random.default_rng(0)
        >>> start = Martingale.of(generator.random(300))
        >>> start.observe(generator.random(300)).found_at is None
        True
        >>> start.observe(generator.random(300) ** 0.3).found_at < 100
        True
    """

    delta: float
    seed: int
    calibration: int
    scores: tuple[float, ...]
    log_capital: tuple[float, ...]
    highest: float = 0.0
    found_at: int | None = None

    @staticmethod
    def of(calibration: Any, delta: float = 0.05, seed: int = 0) -> Martingale:
        """The state before the first row of the stream.

        Args:
            calibration: (rows,), scores of calibration rows.
            delta: how often it may cry without need, in (0, 1).
            seed: of what breaks ties, fixed beforehand.

        Raises:
            CertificateError: scores that are none, or settings out of range.
        """
        if isinstance(delta, bool) or not isinstance(delta, int | float) or not 0.0 < delta < 1.0:
            raise CertificateError(f"delta={delta!r} must lie between 0 and 1, as 0.05.")
        check_seed(seed, CertificateError)
        found = checked_scores(calibration, "calibration")
        even = -math.log(len(BETS))
        return Martingale(delta, seed, len(found), tuple(np.sort(found).tolist()), (even,) * len(BETS))

    @property
    def rows(self) -> int:
        """Rows of the stream so far."""
        return len(self.scores) - self.calibration

    @property
    def value(self) -> float:
        """All of the capital now, from 1 at the start."""
        return float(np.exp(min(_total(np.array(self.log_capital)), 700.0)))

    @property
    def p_value(self) -> float:
        """Of the hypothesis that all is exchangeable, at any time: 1 over the highest capital."""
        return math.exp(-max(0.0, self.highest))

    def observe(self, scores: Any) -> Martingale:
        """The state after some more rows of the stream, in the order in which they came.

        Args:
            scores: (rows,).

        Raises:
            CertificateError: scores that are none.
        """
        bag, log_capital = list(self.scores), np.array(self.log_capital)
        highest, found_at, threshold = self.highest, self.found_at, -math.log(self.delta)
        for score in checked_scores(scores, "scores").tolist():
            p = _rank(bag, score, self.seed)
            dealt = _total(log_capital) + math.log(JUMP / len(BETS))
            log_capital = np.logaddexp(log_capital + math.log(1 - JUMP), dealt) + np.log(densities(p))
            highest = max(highest, _total(log_capital))
            if found_at is None and highest >= threshold:
                found_at = len(bag) - self.calibration
        return replace(
            self,
            scores=tuple(bag),
            log_capital=tuple(log_capital.tolist()),
            highest=highest,
            found_at=found_at,
        )

    def write(self, path: str | Path) -> None:
        """Write the state as JSON, whole or not at all.

        Args:
            path: file to write.
        """
        write_state(path, FORMAT, dict(self.__dict__))

    @staticmethod
    def read(path: str | Path) -> Martingale:
        """A state that was written: observing goes on as if it had never been.

        Args:
            path: the file.

        Raises:
            CertificateError: it is missing, or holds no such state.
        """
        values = read_state(path, FORMAT, _SHAPE)
        scores = values["scores"]
        fits = 1 <= values["calibration"] <= len(scores) and len(values["log_capital"]) == len(BETS)
        if not fits or scores != sorted(scores):
            raise CertificateError(f"{path}: its scores or bets are not those of a stream. It was changed.")
        lists = {key: tuple(map(float, values[key])) for key in ("scores", "log_capital")}
        return Martingale(**{**values, **lists})


_SHAPE = Record(
    {
        "delta": Number(1e-300, 1 - 1e-16), "seed": Number(0, whole=True),
        "calibration": Number(1, whole=True), "scores": Items(Number(), least=1),
        "log_capital": Items(Number()), "highest": Number(0), "found_at": nullable(Number(1, whole=True)),
    },
    closed=True,
)  # fmt: skip


def _rank(bag: list[float], score: float, seed: int) -> float:
    """The p-value of a score, which is put in its place among the others."""
    place = bisect.bisect_right(bag, score)
    bag.insert(place, score)
    higher = len(bag) - 1 - place
    equal = place + 1 - bisect.bisect_left(bag, score)
    return (higher + _chance(seed, len(bag)) * equal) / len(bag)


def _total(log_capital: Array) -> float:
    return float(np.logaddexp.reduce(log_capital))


def _chance(seed: int, row: int) -> float:
    """Uniform on [0, 1), of its own for each row: a state that was saved goes on with the same."""
    return float(np.random.default_rng((seed, row)).random())
