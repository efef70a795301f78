"""Several starts: a fixed sequence from each of some places of the path, each with its share of delta."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesprune.certify.pvalues import Array
from bayesprune.certify.rules.protocol import OnAllRows, Rows
from bayesprune.errors import CertificateError
from bayesprune.ranges import is_whole


@dataclass(frozen=True)
class MultiStart(OnAllRows):
    r"""Fixed sequences from several places of the path; delta is split over them, and adds up where they
    meet.

    From start s, with the share :math:`w_s` of delta (:math:`\sum_s w_s = 1`), candidates are tested in the
    path's order up to the first that fails. A sequence that arrives at the next start takes that start's
    share along:

    .. math:: \delta_i = w_i\,\delta + \delta_{i-1}\,1[\,i - 1 \text{ was certified}\,], \qquad
              \text{certify } i \iff p_i \le \delta_i

    with :math:`w_i = 0` where nothing starts. So after a bump, where the risk is not monotone along the path,
    the next start goes on; where there is no bump all of delta is together again at the last one.

    *Why at most delta.* Take the candidates whose risk is above alpha, :math:`i_1 < i_2 < \dots`. If
    :math:`i_k` is the first of them to be certified, :math:`i_{k-1}` was not, and what arrives at
    :math:`i_k` comes from starts behind it: :math:`\delta_{i_k} \le b_k = \delta \sum_{i_{k-1} < s \le i_k}
    w_s`, a fixed number. So the probability of any false certificate is at most :math:`\sum_k P(p_{i_k} \le
    b_k) \le \sum_k b_k \le \delta`, however the p-values hang together.

    Args:
        starts: how many, spread evenly over the path from its beginning; or their positions, rising, from 0.
        weights: of the starts, positive, in any unit; by default all equal.

    Raises:
        CertificateError: no start, positions that do not rise, or weights that are not as many and positive;
            when it is used: more starts than candidates, or one beyond them.

    Source:
        Starts of their own share: A. Angelopoulos et al. (2021), Learn then Test, arXiv 2110.01052, fixed
        sequence testing. Shares that add up: B. L. Wiens (2003), A fixed sequence Bonferroni procedure for
        testing multiple endpoints, Pharmaceutical Statistics 2, which certifies all of the former, and more.

    Example:
        >>> p = np.array([0.001, 0.2, 0.02, 0.01])
        >>> MultiStart(starts=2).decide(lambda rows: p, 4, 100, delta=0.05).certified.tolist()
        [True, False, True, True]
    """

    starts: int | Sequence[int] = 4
    weights: Sequence[float] | None = None

    name = "multi-start"

    def __post_init__(self) -> None:
        wrong = _problems(self.starts, self.weights)
        if wrong:
            raise CertificateError("MultiStart: " + " ".join(wrong))
        if not is_whole(self.starts):
            object.__setattr__(self, "starts", tuple(int(place) for place in _listed(self.starts)))
        if self.weights is not None:
            object.__setattr__(self, "weights", tuple(float(weight) for weight in self.weights))

    def certified(self, p_values: Array, order: Rows, delta: float) -> npt.NDArray[np.bool_]:
        """(candidates,), bool: those whose p-value is at most what arrives at them."""
        levels = self.levels(p_values, order, delta)
        return np.asarray((levels > 0) & (p_values <= levels))  # a p-value may be 0 for want of digits

    def levels(self, p_values: Array, order: Rows, delta: float) -> Array:
        """(candidates,), what arrives at each: what its p-value has to undercut.

        Args:
            p_values: (candidates,).
            order: not looked at: it is the path's.
            delta: the family-wise error rate.
        """
        levels = delta * self.shares(len(p_values))
        for place in range(1, len(levels)):
            if 0 < levels[place - 1] >= p_values[place - 1]:
                levels[place] += levels[place - 1]
        return np.minimum(levels, delta)  # of shares that add up to one but for rounding

    def shares(self, candidates: int) -> Array:
        """(candidates,), the share of delta that starts at each; they add up to one.

        Raises:
            CertificateError: more starts than candidates, or one beyond them.
        """
        places = self.places(candidates)
        weights = np.ones(len(places)) if self.weights is None else np.array(self.weights)
        found = np.zeros(candidates)
        found[places] = weights / weights.sum()
        return found

    def places(self, candidates: int) -> list[int]:
        """The positions at which sequences start.

        Raises:
            CertificateError: more starts than candidates, or one beyond them.
        """
        if isinstance(self.starts, int):
            if self.starts > candidates:
                raise CertificateError(
                    f"MultiStart(starts={self.starts}): the path has {candidates} candidates. Give so many "
                    "starts at most, or a longer path."
                )
            return [step * candidates // self.starts for step in range(self.starts)]
        places = list(_listed(self.starts))
        if places[-1] >= candidates:
            raise CertificateError(
                f"MultiStart: a start at {places[-1]} is beyond the path, whose {candidates} candidates are "
                "counted from 0."
            )
        return places

    def level(self, candidates: int, delta: float) -> float:
        """The largest share of a start: below it, no sequence begins."""
        return float(delta * self.shares(candidates).max())

    def to_json(self) -> dict[str, Any]:
        """Name and settings."""
        return {
            "name": self.name,
            "starts": self.starts if isinstance(self.starts, int) else list(self.starts),
            "weights": None if self.weights is None else list(self.weights),
        }


def _listed(starts: Any) -> list[Any]:
    return list(starts) if isinstance(starts, list | tuple | range) else []


def _problems(starts: Any, weights: Any) -> list[str]:
    places, wrong = _listed(starts), []
    count = starts if is_whole(starts) else len(places)
    if is_whole(starts):
        if starts < 1:
            wrong.append(f"starts={starts!r}: give at least 1, or positions on the path, as [0, 10, 20].")
    elif (
        not places
        or not all(is_whole(place) and place >= 0 for place in places)
        or any(after <= before for before, after in pairwise(places))
    ):
        wrong.append(f"starts={starts!r:.80}: give a number, or positions that rise, as [0, 10, 20].")
    if weights is None:
        return wrong
    listed = list(weights) if isinstance(weights, list | tuple) else []
    numbers = all(isinstance(w, int | float) and not isinstance(w, bool) for w in listed)
    if not listed or not numbers or not all(0.0 < weight < math.inf for weight in listed):
        wrong.append(f"weights={weights!r:.80}: give positive numbers, one for each start.")
    elif not wrong and len(listed) != count:
        wrong.append(f"{len(listed)} weights for {count} starts: give one for each.")
    return wrong
