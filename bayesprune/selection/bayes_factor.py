"""BayesFactor: a unit goes where the network without it has the higher evidence."""

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
from bayesprune.selection.occam import occam
from bayesprune.selection.subject import Subject


@dataclass(frozen=True, eq=False)
class BayesFactor(GainRule):
    r"""Evidence of the network without a unit, over that with it, all other weights as they are.

    .. math:: \log \mathrm{BF}_u = \log\frac{p(D \mid w_u = 0)}{\int p(D \mid w_u)\, p(w_u)\, dw_u}
              \approx -\mathrm{gain}_u + \sum_{w \in u} \Big( \frac{w^2}{2 s_w^2}
              + \tfrac12 \log(1 + s_w^2 h_w) \Big)

    over the weights w that read u, with p(w) = N(0, s²) and h the curvature of the training rows' nats, by
    Laplace's method at the weights as they are, which should be at a mode. The last term is Occam's factor,
    of how many values the data rule out; without it a unit at a mode would never go. Exact in a linear
    Gaussian model with the other weights held; what other units could take over is not counted (see
    ``bayesprune.posterior.integrate_weights``). A unit stays where log BF < log ``least_evidence``. After
    Mathew & Rowe, Pruning a Neural Network Using Bayesian Inference (arXiv 2308.02451), of which only the
    abstract was at hand (posterior probabilities before and after pruning give Bayes factors, which guide
    iterative pruning); the formula is derived here, Occam's factor after MacKay (1992).

    Attributes:
        weight_scale: s, one for all or by parameter name or glob; by default the posterior's.
        least_evidence: the Bayes factor for removal that is asked for; above 1 keeps units in doubt.
    """

    weight_scale: float | Mapping[str, float] | None = None
    least_evidence: float = 1.0

    def line(self, subject: Subject) -> Scores:
        """group → (size,), Σ w² / 2s² + occam − log ``least_evidence``: what a gain has to pass, nats."""
        if not 0 < self.least_evidence < math.inf:
            raise SelectionError(f"BayesFactor(least_evidence={self.least_evidence!r}): a number above 0.")
        prior = weight_prior(subject, self.weight_scale, self.name)
        nats = summed_scaled(subject, prior.scale_of)
        zero = {g.name: torch.zeros(g.size, dtype=torch.float64) for g in subject.groups}
        free = occam(self._loss(subject), prior.scale_of)
        return {
            name: nats.get(name, none) / 2 + free.get(name, none) - math.log(self.least_evidence)
            for name, none in zero.items()
        }


def weight_prior(
    subject: Subject, weight_scale: float | Mapping[str, float] | None, rule: str
) -> NormalWeights:
    """The prior of the weights: as given, else the posterior's.

    Args:
        subject: what is pruned.
        weight_scale: its standard deviation, or by parameter name or glob.
        rule: its name, for messages.

    Raises:
        SelectionError: neither is there.
    """
    if weight_scale is not None:
        return NormalWeights(scale=weight_scale)
    if subject.gated is None:
        raise SelectionError(
            f"{rule} weighs a unit's weights by their prior: give weight_scale=, its standard deviation (a "
            "weight decay of d on the mean loss of N rows is 1 / sqrt(N d))."
        )
    return subject.gated.weights
