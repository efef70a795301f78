"""ModelReduction: the evidence for a unit, in closed form, from a Gaussian posterior of its weights."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bayesprune.errors import SelectionError
from bayesprune.selection.inclusion import above
from bayesprune.selection.magnitude import columns_of
from bayesprune.selection.masks import Masks, Scores
from bayesprune.selection.rule import Scope, Scored
from bayesprune.selection.subject import Subject


@dataclass(frozen=True)
class ModelReduction(Scored):
    r"""Bayesian model reduction to the network without a unit.

    .. math:: \log\frac{p(D \mid \text{with } u)}{p(D \mid \text{without } u)}
              = \log\frac{p(w_u = 0)}{q(w_u = 0)}
              = \sum_{w \in u} \tfrac12 \Big( \frac{\mu_w^2}{\sigma_w^2} - \log\frac{s_w^2}{\sigma_w^2} \Big)

    over the weights w that read u, with prior N(0, s²) and posterior N(μ, σ²): the Savage–Dickey ratio,
    which is Bayesian model reduction (Friston & Penny 2011, Post hoc Bayesian model selection; literature)
    in the limit of a reduced prior that is a point at zero. No threshold and no data: a unit stays where
    it is positive. Exact where q is the posterior and weights are independent under it (an orthogonal
    linear model); of a mean-field posterior an approximation, which counts evidence twice where units are
    correlated.
    """

    scope: Scope = field(default="global", init=False, repr=False)

    def scores(self, subject: Subject, seed: int = 0) -> Scores:
        """group → (size,), log evidence for the unit, nats; units that no weight reads stay.

        Raises:
            SelectionError: the weights have no Gaussian posterior.
        """
        gated = subject.posterior
        scales = gated.log_scales_by_tensor()
        if not scales:
            raise SelectionError(
                "ModelReduction needs a Gaussian posterior of the weights, and these are points: fit with "
                'weights=bp.priors.NormalWeights(posterior="normal").'
            )
        nats: dict[str, Tensor] = {}
        for name, mean in subject.weights().items():
            if name in scales:
                spread, slab = scales[name].detach().double().cpu().exp(), gated.weights.scale_of(name)
                mean = mean.double().cpu()
                nats[name] = 0.5 * ((mean / spread) ** 2 - 2 * torch.log(slab / spread))
        return columns_of(subject, nats)

    def masks(self, subject: Subject, seed: int = 0) -> Masks:
        """Units with evidence for them; the best of every group at least."""
        scores = {g.name: torch.full((g.size,), torch.inf, dtype=torch.float64) for g in subject.groups}
        return above(subject, {**scores, **self.scores(subject)}, 0.0)
