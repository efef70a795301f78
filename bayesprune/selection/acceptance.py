"""Acceptance: masks that are proposed, and kept only where a Bayes factor is for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from bayesprune.errors import SelectionError
from bayesprune.likelihoods import Likelihood
from bayesprune.priors import NormalWeights
from bayesprune.selection.bayes_factor import weight_prior
from bayesprune.selection.family import Family
from bayesprune.selection.gains import Loss
from bayesprune.selection.magnitude import Magnitude, summed_scaled
from bayesprune.selection.masks import Masks, Scores, fed
from bayesprune.selection.occam import occam
from bayesprune.selection.random_nodes import RandomNodes
from bayesprune.selection.rows import pairs_of
from bayesprune.selection.rule import Rule, Scope
from bayesprune.selection.subject import Subject
from bayesprune.selection.taylor import likelihood_of


@dataclass(frozen=True, eq=False)
class BayesAcceptance(Rule):
    r"""Propose to take units out, all of them together, and do so where the Bayes factor is large enough.

    .. math:: \log \mathrm{BF} = \log\frac{p(D \mid w_R = 0)}{\int p(D \mid w_R)\, p(w_R)\, dw_R}
              \approx N L(m) - N L(m') + \sum_{w \in R} \Big( \frac{w^2}{2 s_w^2}
              + \tfrac12 \log(1 + s_w^2 h_w) \Big) \ge \log \mathrm{least\_evidence}

    m being the masks now, m' those proposed, and R the weights that read the units which differ, with prior
    N(0, s²) and h the curvature of the training rows' nats; all other weights as they are. ``BayesFactor`` is
    this for single units; the loss of several is asked for at once, and what they lose together counts. By
    Laplace's method at the weights as they are, with weights that count one by one: exact in a linear
    Gaussian model at its mode where what is proposed is orthogonal, and elsewhere, by Hadamard's inequality,
    never below the exact one with the other weights held.

    After Mathew & Rowe, Pruning a neural network using Bayesian inference (arXiv 2308.02451), of which only
    the abstract was at hand: posterior probabilities before and after pruning give Bayes factors, which guide
    iterative pruning within training. What is proposed, and the formula, are ours; ``occam=False`` leaves out
    the logarithm: what is left is the ratio of the two posterior densities at the weights as they are. For
    acceptance while a network learns see ``bayesprune.baseline.accepted``.

    Attributes:
        rows: (rows, ...), inputs of training rows.
        targets: (rows, ...), as the likelihood takes them.
        propose: ``"magnitude"``, the units of the smallest norms; or ``"random"``.
        share: of every group's living units, that a proposal takes out, at least one, and never the last.
        proposals: one after another, each from what the last one left.
        weight_scale: s, one for all or by parameter name or glob; by default the posterior's.
        least_evidence: the Bayes factor that is asked for; above 1 keeps units in doubt.
        occam: whether weights are charged for being free to take other values.
        likelihood: it knows N, the number of training rows; by default the posterior's.
    """

    rows: Tensor = field(repr=False)
    targets: Tensor = field(repr=False)
    propose: Literal["magnitude", "random"] = "magnitude"
    share: float = 0.1
    proposals: int = 1
    weight_scale: float | Mapping[str, float] | None = None
    least_evidence: float = 1.0
    occam: bool = True
    likelihood: Likelihood | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.propose not in ("magnitude", "random"):
            raise SelectionError(f"{self.name}(propose={self.propose!r}): 'magnitude' or 'random'.")
        if isinstance(self.share, bool) or not isinstance(self.share, int | float) or not 0 < self.share < 1:
            raise SelectionError(f"{self.name}(share={self.share!r}): of a group's units, between 0 and 1.")
        if isinstance(self.proposals, bool) or not isinstance(self.proposals, int) or self.proposals < 1:
            raise SelectionError(f"{self.name}(proposals={self.proposals!r}): a whole number, at least 1.")
        if not 0 < self.least_evidence < math.inf:
            raise SelectionError(f"{self.name}(least_evidence={self.least_evidence!r}): a number above 0.")

    def family(self, subject: Subject, scope: Scope, seed: int) -> Family:
        """None: evidence says how many go.

        Raises:
            SelectionError: always.
        """
        raise SelectionError(
            f"{self.name} takes out as many units as evidence accepts: leave share= and parameters= away, or "
            "take BayesFactor, which puts units in an order."
        )

    def masks(self, subject: Subject, seed: int = 0) -> Masks:
        """What the proposals that were accepted leave.

        A proposal by magnitude that is refused is the last one: the next would be the same.
        """
        found = {name: alive.clone() for name, alive in subject.alive.items()}
        likelihood = likelihood_of(subject, self.likelihood, self.name)
        loss = Loss(subject, likelihood, *pairs_of(subject, likelihood, self.rows, self.targets, self.name))
        line = self._line(loss)
        for number in range(self.proposals):
            proposed = self.proposed(subject, found, seed + number)
            if _log_factor(loss, line, found, proposed) >= math.log(self.least_evidence):
                found = proposed
            elif self.propose == "magnitude":
                break
        return found

    def proposed(self, subject: Subject, masks: Masks, seed: int = 0) -> Masks:
        """The masks that are proposed next.

        Args:
            subject: what is pruned.
            masks: group → (size,) bool, of all groups, as they are.
            seed: of random proposals.
        """
        rule = RandomNodes() if self.propose == "random" else Magnitude()
        found = {name: mask.clone() for name, mask in masks.items()}
        for name, scores in rule.scores(subject, seed).items():
            there = found[name].nonzero().squeeze(1)
            count = min(math.ceil(self.share * len(there)), len(there) - 1)
            found[name][there[scores[there].argsort(stable=True)[: max(count, 0)]]] = False
        return subject.closed(fed(subject.groups, subject.slots, found, subject.alive, seed))

    def log_factor(self, subject: Subject, masks: Masks, proposed: Masks) -> float:
        """Evidence for some masks over others of more units, nats.

        Args:
            subject: what is pruned.
            masks: group → (size,) bool, of all groups.
            proposed: likewise, with some of these units gone.

        Raises:
            SelectionError: the proposal has units that were gone.
        """
        added = [name for name, mask in proposed.items() if bool((mask & ~masks[name]).any())]
        if added:
            raise SelectionError(
                f"{self.name}: a proposal takes units out, and this one has more of {added}."
            )
        likelihood = likelihood_of(subject, self.likelihood, self.name)
        loss = Loss(subject, likelihood, *pairs_of(subject, likelihood, self.rows, self.targets, self.name))
        return _log_factor(loss, self._line(loss), masks, proposed)

    def _line(self, loss: Loss) -> Scores:
        """group → (size,), nats that a unit's weights cost."""
        prior: NormalWeights = weight_prior(loss.subject, self.weight_scale, self.name)
        nats = {name: value / 2 for name, value in summed_scaled(loss.subject, prior.scale_of).items()}
        if not self.occam:
            return nats
        free = occam(loss, prior.scale_of)
        return {name: value + free[name] for name, value in nats.items()}


def _log_factor(loss: Loss, line: Scores, masks: Masks, proposed: Masks) -> float:
    """Nats that the units cost, less those that they save together."""
    cost = sum(float(nats[masks[name] & ~proposed[name]].sum()) for name, nats in line.items())
    return loss(masks) - loss(proposed) + cost
