"""GainRule: a unit stays where what it saves passes a line; the rules differ in the line."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from dataclasses import dataclass, field

from torch import Tensor

from bayesprune.errors import SelectionError
from bayesprune.likelihoods import Likelihood
from bayesprune.selection.gains import Loss, descend, gains
from bayesprune.selection.inclusion import above, log_odds
from bayesprune.selection.masks import Masks, Scores, floor
from bayesprune.selection.rows import pairs_of
from bayesprune.selection.rule import Scope, Scored
from bayesprune.selection.subject import Subject
from bayesprune.selection.taylor import likelihood_of


@dataclass(frozen=True, eq=False)
class GainRule(Scored):
    r"""Masks at which every unit that stays gains more than its line, and none that went would.

    .. math:: J(m) = N L(m) + \sum_u \mathrm{line}_u\, m_u

    From the median probability masks (of a trained network: from the whole one) units are flipped one at a
    time as long as J falls: a minimum among the masks one flip away, not among all. Scores for a path are
    gain − line at the masks where the descent begins.

    Attributes:
        rows: (rows, ...), inputs of training rows.
        targets: (rows, ...), as the likelihood takes them.
        likelihood: it knows N, the number of training rows; by default the posterior's.
        sweeps: over all units, at most.
    """

    rows: Tensor = field(repr=False)
    targets: Tensor = field(repr=False)
    likelihood: Likelihood | None = field(default=None, kw_only=True)
    sweeps: int = field(default=10, kw_only=True)
    scope: Scope = field(default="global", init=False, repr=False)

    @abstractmethod
    def line(self, subject: Subject) -> Scores:
        """group → (size,), what a unit's gain has to pass, nats."""

    def scores(self, subject: Subject, seed: int = 0) -> Scores:
        """group → (size,), nats by which a unit's gain passes its line. A pass over the rows for each "
        "unit."""
        return _margins(self._loss(subject), _start(subject), self.line(subject))

    def masks(self, subject: Subject, seed: int = 0) -> Masks:
        """Where the descent ends; the unit of each group that was best to begin with stays whatever it gains.

        Warns:
            UserWarning: units still changed in the last sweep.
        """
        loss, line, start = self._loss(subject), self.line(subject), _start(subject)
        margins = _margins(loss, start, line)
        least = floor(subject.groups, subject.slots, margins, subject.alive)
        start = {name: mask | least[name] for name, mask in start.items()}
        masks, settled = descend(loss, start, line, margins, least, self.sweeps)
        if not settled:
            warnings.warn(
                f"{self.name}: units still changed in sweep {self.sweeps}: allow for more sweeps=.",
                stacklevel=2,
            )
        return masks

    def _loss(self, subject: Subject) -> Loss:
        if isinstance(self.sweeps, bool) or not isinstance(self.sweeps, int) or self.sweeps < 1:
            raise SelectionError(f"{self.name}(sweeps={self.sweeps!r}): a whole number, at least 1.")
        likelihood = likelihood_of(subject, self.likelihood, self.name)
        return Loss(subject, likelihood, *pairs_of(subject, likelihood, self.rows, self.targets, self.name))


def _margins(loss: Loss, masks: Masks, line: Scores) -> Scores:
    """group → (size,), gain − line, nats."""
    return {name: gain - line[name] for name, gain in gains(loss, masks).items()}


def _start(subject: Subject) -> Masks:
    """θ > ½ of a posterior; of a trained network all that is there."""
    if subject.gated is None:
        return {name: mask.clone() for name, mask in subject.alive.items()}
    return above(subject, log_odds(subject), 0.0)
