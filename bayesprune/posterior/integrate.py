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
from bayesprune.likelihoods.curvature import in_outputs, root_of
from bayesprune.posterior.draws import quiet
from bayesprune.posterior.rows import Rows, check_rows
from bayesprune.priors.gates import MOST_ENUMERABLE_UNITS
from bayesprune.priors.protocol import closed_form
from bayesprune.rows import Source
from bayesprune.structure.copying import copy_of
from bayesprune.svi.estimators import all_configurations
from bayesprune.svi.result import FitResult

MOST_WEIGHTS = 500
"""That are integrated out at once: each mask needs a Cholesky factor of all of them."""
MOST_STEPS, HALVINGS = 50, 30
DECREMENT = 1e-5
"""Nats that a Newton step would still gain, where the mode is taken to be reached."""
PARABOLA = 1e-9
"""Share of a step's gain by which it may miss a parabola's, to be taken for one."""
MOST_WORK = 100_000
"""Masks × weights × rows that are gone through unasked."""
NUMBERS_AT_ONCE = 8_000_000
CHUNK = 64

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
    problem = _Problem.of(gated, pair, names)
    scores, modes, converged = np.empty(len(masks)), [], np.zeros(len(masks), bool)
    with quiet(problem.gated):
        for number, mask in enumerate(masks):
            found, mode, converged[number] = problem.log_evidence(mask)
            scores[number] = found + _log_prior(problem.gated, mask)
            modes.append(mode.numpy())
    return Integrated(masks.to(torch.int8).numpy(), scores, np.stack(modes), names, converged)


def tensors_of(gated: GatedModel, weights: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names of the tensors that are integrated out: those asked for; else all, or the last layer's.

    Tensors that are frozen (``requires_grad`` is off) are known, and only integrated out where asked for.
    """
    if weights is not None:
        return tuple(weights)
    tensors = {name: w for name, w in gated.weight_tensors().items() if w.requires_grad}
    if sum(w.numel() for w in tensors.values()) <= MOST_WEIGHTS:
        return tuple(tensors)
    last = next(reversed([name for name, w in tensors.items() if w.ndim > 1])).rpartition(".")[0]
    return tuple(name for name in tensors if name.rpartition(".")[0] == last)


def what_of(gated: GatedModel) -> str:
    """What is integrated out by default, in words."""
    names, tensors = tensors_of(gated), gated.weight_tensors()
    return "weights integrated out" if len(names) == len(tensors) else f"{', '.join(names)} integrated out"


def affordable(gated: GatedModel, rows: Rows) -> int:
    """How many masks have their weights integrated out unasked: a matter of seconds.

    Args:
        gated: the model.
        rows: (inputs, targets).
    """
    weights = sum(gated.weight_tensors()[name].numel() for name in tensors_of(gated))
    return MOST_WORK // max(1, weights * len(rows[0]))


def why_not_integrated(gated: GatedModel, weights: Sequence[str] | None = None) -> str:
    """Why the weights cannot be integrated out; empty if they can.

    Args:
        gated: the model.
        weights: tensors that are asked for.
    """
    tensors = gated.weight_tensors()
    strange = [name for name in weights or () if name not in tensors]
    if strange or not tensors:
        return f"no weights {', '.join(strange)}: there are {', '.join(tensors) or 'none'}"
    if not tensors_of(gated, weights):
        return "the weights are frozen, and so known"
    count = sum(tensors[name].numel() for name in tensors_of(gated, weights))
    if count > MOST_WEIGHTS:
        return f"{count:,} weights, and {MOST_WEIGHTS} can be integrated out: name those of a smaller layer"
    if any(closed_form(gated.prior, group) is None for group in gated.groups):
        return "the prior has no closed form"
    return ""


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


def _log_prior(gated: GatedModel, mask: Tensor) -> float:
    total = 0.0
    for group, z in zip(gated.groups, gated.by_group(mask.double()).values(), strict=True):
        known = closed_form(gated.prior, group)
        assert known is not None
        total -= float(known.penalty(group, z))
    return total


@dataclass(frozen=True)
class _Problem:
    """A network as a function of some of its weights, in double precision on the CPU."""

    gated: GatedModel
    x: Any
    y: Tensor
    names: tuple[str, ...]
    start: Tensor  # (weights,)
    variance: Tensor  # (weights,)

    @staticmethod
    def of(gated: GatedModel, rows: Rows, names: tuple[str, ...]) -> _Problem:
        copy = copy_of(gated).cpu().double().eval().requires_grad_(False)
        x, y = rows[0].to("cpu"), rows[1].to("cpu")
        y = copy.likelihood.taught(x, y)
        x = x.double() if isinstance(x, Tensor) and x.is_floating_point() else x
        y = y.double() if y.is_floating_point() else y
        tensors = copy.weight_tensors()
        start = torch.cat([tensors[name].detach().reshape(-1) for name in names])
        variance = torch.cat(
            [torch.full((tensors[n].numel(),), copy.weights.scale_of(n) ** 2).double() for n in names]
        )
        return _Problem(copy, x, y, names, start, variance)

    def log_evidence(self, mask: Tensor) -> tuple[float, Tensor, bool]:
        """Log of the integral over the weights, the mode, and whether it was reached."""
        gates, w = self.gated.by_group(mask.double()), self.start
        here, reached = self._energy(w, gates), False
        for _ in range(MOST_STEPS):
            slope, curvature = self._derivatives(w, gates)
            factor = torch.linalg.cholesky(curvature)
            step = -torch.cholesky_solve(slope[:, None], factor)[:, 0]
            gain = -float(slope @ step) / 2
            reached = gain < DECREMENT
            found = None if reached else self._downhill(w, step, gates, here - 1e-4 * gain)
            if found is None:
                break
            w, before, here = found[0], here, found[1]
            if abs(before - here - gain) <= PARABOLA * gain:
                reached = True
                break  # what a parabola gains: its curvature is the same at the mode
        else:  # the curvature belongs to where the last step has led
            factor = torch.linalg.cholesky(self._derivatives(w, gates)[1])
        log_det = 2 * float(factor.diagonal().log().sum()) + float(self.variance.log().sum())
        return -here - log_det / 2, w, reached

    def _downhill(
        self, w: Tensor, step: Tensor, gates: dict[str, Tensor], below: float
    ) -> tuple[Tensor, float] | None:
        """Where half a step, a quarter … leads down, and how far; None where none does."""
        for halving in range(HALVINGS):
            there = self._energy(w + step / 2**halving, gates)
            if there <= below:
                return w + step / 2**halving, there
        return None

    def _outputs(self, w: Tensor, gates: dict[str, Tensor], part: slice) -> Tensor:
        tensors, values, at = self.gated.weight_tensors(), {}, 0
        for name in self.names:
            values[name] = w[at : at + tensors[name].numel()].reshape(tensors[name].shape)
            at += tensors[name].numel()
        return self.gated.outputs(self.x[part], gates, values)

    @property
    def _scale(self) -> float:
        return self.gated.likelihood.rows / len(self.y)

    def _energy(self, w: Tensor, gates: dict[str, Tensor]) -> float:
        """Minus log p(y, w | mask), without the prior's constant."""
        outputs = self._outputs(w, gates, slice(None))
        nll = float(self.gated.likelihood.nll(outputs, self.y).sum())
        energy = self._scale * nll + float((w.square() / self.variance).sum()) / 2
        return energy if np.isfinite(energy) else float("inf")

    def _derivatives(self, w: Tensor, gates: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Slope (weights,) and Gauss–Newton curvature (weights, weights) of the energy."""
        slope, curvature = w / self.variance, torch.diag(1 / self.variance)
        width = self._outputs(w, gates, slice(0, 1)).numel()
        step = max(1, NUMBERS_AT_ONCE // (width * len(w)))
        for start in range(0, len(self.y), step):
            part = slice(start, start + step)
            outputs, y = self._outputs(w, gates, part), self.y[part]
            first, second = in_outputs(self.gated.likelihood, outputs, y)  # (n, o), (n, o, o)
            jacobian = self._jacobian(w, gates, part)  # (n, o, weights)
            slope = slope + self._scale * first.flatten() @ jacobian.flatten(0, 1)
            root = (root_of(second) @ jacobian).flatten(0, 1)  # (n o, weights)
            curvature = curvature + self._scale * root.T @ root
        return slope, curvature

    def _jacobian(self, w: Tensor, gates: dict[str, Tensor], part: slice) -> Tensor:
        """(n, o, weights): columns are slopes in u of Jᵀu, which is linear in u, some at a time."""
        with torch.enable_grad():
            free = w.detach().requires_grad_(True)
            outputs = self._outputs(free, gates, part).flatten(1)
            u = torch.zeros_like(outputs, requires_grad=True)
            (pulled,) = torch.autograd.grad(outputs, free, u, create_graph=True)
            if not pulled.requires_grad:  # no open unit: nothing reads these weights
                return outputs.new_zeros(*outputs.shape, len(w))
            parts = [
                torch.autograd.grad(pulled, u, some, retain_graph=True, is_grads_batched=True)[0]
                for some in torch.eye(len(w), dtype=w.dtype).split(CHUNK)
            ]
        return torch.cat(parts).movedim(0, -1)
