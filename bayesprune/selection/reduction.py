"""ModelReduction: the evidence for a unit, in closed form, from a Gaussian posterior of its weights."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bayesprune.callers import level
from bayesprune.errors import CorrelationWarning, SelectionError
from bayesprune.selection.activations import unit_vectors
from bayesprune.selection.inclusion import above
from bayesprune.selection.magnitude import columns_of
from bayesprune.selection.masks import Masks, Scores
from bayesprune.selection.rows import inputs_of
from bayesprune.selection.rule import Scope, Scored
from bayesprune.selection.subject import Subject

CORRELATED, LEAST_ROWS = 0.5, 20
"""In absolute value, over as many rows at the least: of fewer any two units are alike."""


@dataclass(frozen=True, eq=False)
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
    correlated: where it can see rows it warns of that.

    Attributes:
        rows: (rows, ...), inputs at which units are compared; by default the subject's example, if it has
            20 rows or more. Without any nothing is compared.
    """

    rows: Any = field(default=None, repr=False)
    scope: Scope = field(default="global", init=False, repr=False)

    def scores(self, subject: Subject, seed: int = 0) -> Scores:
        """group → (size,), log evidence for the unit, nats; units that no weight reads stay.

        Raises:
            SelectionError: the weights have no Gaussian posterior.

        Warns:
            CorrelationWarning: units are correlated by more than 0.5 over the rows, so that their evidence
                is counted more than once; the worst pair of each group is named.
        """
        gated = subject.posterior
        scales = gated.log_scales_by_tensor()
        if not scales:
            raise SelectionError(
                "ModelReduction needs a Gaussian posterior of the weights, and these are points: fit with "
                'weights=bp.priors.NormalWeights(posterior="normal").'
            )
        self._warn_of_copies(subject)
        nats: dict[str, Tensor] = {}
        for name, mean in subject.weights().items():
            if name in scales:
                spread, slab = scales[name].detach().double().cpu().exp(), gated.weight_scale(name)
                slab = torch.as_tensor(slab, dtype=spread.dtype, device=spread.device)
                mean = mean.double().cpu()
                nats[name] = 0.5 * ((mean / spread) ** 2 - 2 * torch.log(slab / spread))
        return columns_of(subject, nats)

    def _warn_of_copies(self, subject: Subject) -> None:
        given = subject.rows if self.rows is None else self.rows
        if given is None or (self.rows is None and len(subject.form.read(given, "example")) < LEAST_ROWS):
            return
        told = []
        for group, vectors in unit_vectors(subject, inputs_of(subject, given, "ModelReduction")).items():
            alive = subject.alive[group].nonzero().squeeze(1)
            centred = vectors[alive].double() - vectors[alive].double().mean(1, keepdim=True)
            unit = centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-12)
            alike = (unit @ unit.T).abs().fill_diagonal_(0.0)
            if len(alive) > 1 and float(alike.max()) > CORRELATED:
                first, second = divmod(int(alike.argmax()), len(alive))
                pair = f"units {int(alive[first])} and {int(alive[second])}"
                told.append(f"{group!r} ({pair}: {float(alike.max()):.2f})")
        if told:
            warnings.warn(
                f"ModelReduction: units of {', '.join(told)} are correlated, and under a posterior that "
                "takes weights as independent their evidence is counted more than once: compare masks by "
                "bayesprune.posterior.integrate_weights, or remove a few units at a time and fit again.",
                CorrelationWarning,
                stacklevel=level(),
            )

    def masks(self, subject: Subject, seed: int = 0) -> Masks:
        """Units with evidence for them; the best of every group at least."""
        scores = {g.name: torch.full((g.size,), torch.inf, dtype=torch.float64) for g in subject.groups}
        return above(subject, {**scores, **self.scores(subject)}, 0.0)
