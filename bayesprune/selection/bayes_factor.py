"""BayesFactor: a unit goes where the network without it is the more probable one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from bayesprune.errors import SelectionError
from bayesprune.priors import NormalWeights
from bayesprune.selection.descent import GainRule
from bayesprune.selection.magnitude import summed_scaled
from bayesprune.selection.masks import Scores
from bayesprune.selection.subject import Subject


@dataclass(frozen=True, eq=False)
class BayesFactor(GainRule):
    r"""Posterior density of the weights without a unit, over that with it.

    .. math:: \log \mathrm{BF}_u = \log\frac{p(D \mid W_{-u})\, p(W_{-u})}{p(D \mid W)\, p(W)}
              = -\mathrm{gain}_u + \sum_{w \in u} \frac{w^2}{2 s_w^2}

    W_{−u} has the weights that read u at zero, and p(w) = N(0, s²), whose normalisers cancel as both
    networks are points of the same space. A unit stays where log BF < log ``least_evidence``. After Mathew
    & Rowe, Pruning a Neural Network Using Bayesian Inference (arXiv 2308.02451), of which only the
    abstract was at hand (posterior probabilities before and after pruning give Bayes factors, which guide
    iterative pruning); the formula is derived here. It is a ratio of densities at two points, and no ratio
    of marginal likelihoods: with a Gaussian posterior of the weights, ``ModelReduction`` gives that.

    Attributes:
        weight_scale: s, one for all or by parameter name or glob; by default the posterior's.
        least_evidence: the Bayes factor for removal that is asked for; above 1 keeps units in doubt.
    """

    weight_scale: float | Mapping[str, float] | None = None
    least_evidence: float = 1.0

    def line(self, subject: Subject) -> Scores:
        """group → (size,), Σ w² / 2s² − log ``least_evidence``: what a unit's gain has to pass, nats."""
        if not 0 < self.least_evidence < math.inf:
            raise SelectionError(f"BayesFactor(least_evidence={self.least_evidence!r}): a number above 0.")
        prior = self._prior(subject)
        nats = summed_scaled(subject, prior.scale_of)
        zero = {g.name: torch.zeros(g.size, dtype=torch.float64) for g in subject.groups}
        return {name: nats.get(name, zero[name]) / 2 - math.log(self.least_evidence) for name in zero}

    def _prior(self, subject: Subject) -> NormalWeights:
        if self.weight_scale is not None:
            return NormalWeights(scale=self.weight_scale)
        if subject.gated is None:
            raise SelectionError(
                "BayesFactor weighs a unit's weights by their prior: give weight_scale=, its standard "
                "deviation (a weight decay of d on the mean loss of N rows is 1 / sqrt(N d))."
            )
        return subject.gated.weights
