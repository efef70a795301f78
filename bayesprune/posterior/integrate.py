r"""Masks with the weights integrated out: what an exact posterior over masks is made of, weights re-adapted.

.. math:: \log p(z, y) = \log p(z) + \log \int p(y \mid w, z)\, p(w)\, dw

Given the fitted weights, units that share their work each look indispensable, since the others are held where
they are. Here the weights follow each mask, and a unit pays for the weights that it needs (Occam's factor).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp
from torch import Tensor

from bayesprune.errors import PosteriorError
from bayesprune.gated import GatedModel
from bayesprune.posterior.draws import quiet
from bayesprune.posterior.rows import check_rows
from bayesprune.priors.gates import MOST_ENUMERABLE_UNITS
from bayesprune.rows import Source
from bayesprune.svi.estimators import all_configurations
from bayesprune.svi.mask_evidence import MaskEvidence, log_prior, tensors_of, why_not_integrated
from bayesprune.svi.result import FitResult

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Integrated:
    """Masks, and how probable they are with the weights integrated out.

    Attributes:
        masks: (masks, units of all groups), int8, by original unit id.
        log_joint: (masks,), log p(z, y), nats, up to a constant that all masks share.
        modes: (masks, weights), where the posterior of the weights given each mask is highest.
        weights: names of the tensors that were integrated out; the others are as they were fitted.
        converged: (masks,), whether the mode was reached.
    """

    masks: Array
    log_joint: Array
    modes: Array
    weights: tuple[str, ...]
    converged: Array

    @property
    def probs(self) -> Array:
        """(masks,), posterior probabilities among these masks."""
        return np.asarray(np.exp(self.log_joint - logsumexp(self.log_joint)))

    def inclusion_prob(self) -> Array:
        """(units of all groups,), p(z_u = 1 | y) among these masks: exact where they are all there are."""
        return np.asarray(self.probs @ self.masks)


def integrate_weights(
    source: FitResult | GatedModel,
    rows: Source,
    masks: Tensor | None = None,
    weights: Sequence[str] | None = None,
) -> Integrated:
    r"""Log-probability of masks with the weights integrated out, by Laplace's method at each mask's own mode.

    .. math:: \log \int p(y \mid w, z)\, p(w)\, dw \approx \log p(y \mid \hat w_z, z)
              - \tfrac12 \sum_i \hat w_{z,i}^2 / s_i^2 - \tfrac12 \log\det(S H_z),
              \qquad H_z = \tfrac{N}{n} \sum_n J_n^\top \Lambda_n J_n + S^{-1}

    with :math:`S = \mathrm{diag}(s^2)` the weights' prior variances, J the slopes of the outputs and Λ the
    curvature of a row's negative log-likelihood in them (generalised Gauss–Newton). Exact where outputs are
    linear in the weights and targets are Gaussian; elsewhere as good as a Gaussian is, at one mode: networks
    that are equal but for the order or sign of their units are not counted apart. Weights of closed units
    cost nothing, as nothing reads them.

    It is conditional on what is no weight: units that were removed stay so, and noise scales, norms and
    whatever is not listed in ``weights`` stay as they were fitted.

    Args:
        source: the result of a fit, or a gated model, whose weights are where each search for a mode begins.
        rows: (inputs, targets), training rows.
        masks: (masks, units of all groups), zeros and ones; by default all masks of the units that are left,
            at most 12 of them.
        weights: tensors to integrate out; by default all that have a prior and are not frozen, or those of
            the last layer where all are more than 500 numbers.

    Returns:
        The masks and their log-probabilities. A mask takes a few passes over the rows for each weight.

    Raises:
        PosteriorError: too many weights or units, unknown tensors, a prior without a closed form, or masks
            with removed units.

    Source:
        D. MacKay (1992), Bayesian interpolation (evidence and Occam's factor); Laplace's method with the
        Gauss–Newton curvature: literature.

    Example:
        >>> import bayesprune as bp
        >>> x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
        >>> network = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False))
        >>> prior = bp.priors.BernoulliGates(bp.priors.Fixed(0.5))
        >>> gated = bp.gate(network, x, prior=prior, likelihood=bp.Gaussian(rows=50, scale=1.0))
        >>> integrate_weights(gated, (x, 2 * x[:, :1])).inclusion_prob().round(2)
        array([1.  , 0.21])
    """
    gated = source.gated if isinstance(source, FitResult) else source
    pair = check_rows(gated, rows)
    missing = why_not_integrated(gated, weights)
    if missing:
        raise PosteriorError(f"integrate_weights: {missing}.")
    names = tensors_of(gated, weights)
    masks = _checked(gated, masks)
    problem = MaskEvidence.of(gated, pair, names)
    scores, modes, converged = np.empty(len(masks)), [], np.zeros(len(masks), bool)
    with quiet(problem.gated):
        for number, mask in enumerate(masks):
            found, mode, converged[number] = problem.log_evidence(mask)
            scores[number] = found + log_prior(problem.gated, mask)
            modes.append(mode.numpy())
    return Integrated(masks.to(torch.int8).numpy(), scores, np.stack(modes), names, converged)


def what_of(gated: GatedModel) -> str:
    """What is integrated out by default, in words."""
    names, tensors = tensors_of(gated), gated.weight_tensors()
    return "weights integrated out" if len(names) == len(tensors) else f"{', '.join(names)} integrated out"


def _checked(gated: GatedModel, masks: Tensor | None) -> Tensor:
    alive = gated.alive.cpu()
    if masks is None:
        living = alive.nonzero().squeeze(1)
        if len(living) > MOST_ENUMERABLE_UNITS:
            raise PosteriorError(
                f"integrate_weights: {len(living)} units are left, and all masks are enumerated of "
                f"{MOST_ENUMERABLE_UNITS} at most: give masks=, those to be compared."
            )
        every = all_configurations(len(living))
        masks = torch.zeros(len(every), len(alive), dtype=every.dtype)
        masks[:, living] = every
    masks = torch.as_tensor(masks).cpu()
    if masks.ndim != 2 or masks.shape[1] != len(alive) or not bool(((masks == 0) | (masks == 1)).all()):
        raise PosteriorError(
            f"integrate_weights: masks of shape {tuple(masks.shape)} must be (masks, {len(alive)}) zeros and "
            "ones, a column for each unit of the dense network."
        )
    if bool((masks.bool() & ~alive).any()):
        raise PosteriorError(
            "integrate_weights: masks that open units which were removed, whose weights are gone: take the "
            "model before it was cut, such as result.at_decision."
        )
    return masks
