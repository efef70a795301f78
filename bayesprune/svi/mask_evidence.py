r"""The evidence of a mask with the weights integrated out, by Laplace's method at the mask's own mode.

.. math:: \log \int p(y \mid w, z)\, p(w)\, dw \approx \log p(y \mid \hat w_z, z)
          - \tfrac12 \sum_i \hat w_{z,i}^2 / s_i^2 - \tfrac12 \log\det(S H_z)

Given the fitted weights, units that share their work each look indispensable, since the others are held where
they are. Here the weights follow each mask, and a unit pays for the weights that it needs (Occam's factor).
Decisions ask it (``moves``), and so does ``bayesprune.posterior.integrate_weights``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bayesprune.gated import GatedModel
from bayesprune.likelihoods.curvature import in_outputs, root_of
from bayesprune.priors.protocol import closed_form
from bayesprune.rows import Pair
from bayesprune.structure.copying import copy_of

MOST_WEIGHTS = 500
"""That are integrated out at once: each mask needs a Cholesky factor of all of them."""
MOST_STEPS, HALVINGS = 50, 30
DECREMENT = 1e-5
"""Nats that a Newton step would still gain, where the mode is taken to be reached."""
PARABOLA = 1e-9
"""Share of a step's gain by which it may miss a parabola's, to be taken for one."""
UNUSED = 1e-9
"""Standard deviations of its prior that a weight which nothing depends on is from 0 at a mode."""
MOST_WORK = 100_000
"""Masks × weights × rows that are gone through unasked, at up to ``FEW_OUTPUTS`` a row."""
FEW_OUTPUTS = 10
"""More of them cost by their cube: each row's curvature is a matrix of outputs, of which a root is taken."""
NUMBERS_AT_ONCE = 8_000_000
CHUNK = 64


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


def affordable(gated: GatedModel, rows: int) -> int:
    """How many masks have their weights integrated out unasked: a matter of seconds.

    Args:
        gated: the model.
        rows: how many are looked at.
    """
    weights = sum(gated.weight_tensors()[name].numel() for name in tensors_of(gated))
    dearer = max(1.0, _outputs_of_a_row(gated) / FEW_OUTPUTS) ** 3
    return int(MOST_WORK / (max(1, weights * rows) * dearer))


def _outputs_of_a_row(gated: GatedModel) -> int:
    """As many numbers as the network returned for a row of its example; few where that is no tensor."""
    returned = gated.network.structure.captured.returned
    return FEW_OUTPUTS if returned is None or not returned.ndim else returned[0].numel()


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
    if gated.continuous.priors:
        return "gates are continuous, and their prior gives masks no probability"
    if any(closed_form(gated.prior, group) is None for group in gated.groups):
        return "the prior has no closed form"
    return ""


def log_prior(gated: GatedModel, mask: Tensor) -> float:
    """Log-probability of a mask under a prior with a closed form, nats, up to a constant of all masks.

    Args:
        gated: the model.
        mask: (units of all groups,), zeros and ones.
    """
    total = 0.0
    for group, z in zip(gated.groups, gated.by_group(mask.double()).values(), strict=True):
        known = closed_form(gated.prior, group)
        assert known is not None
        total -= float(known.penalty(group, z))
    return total


@dataclass(frozen=True)
class MaskEvidence:
    """A network as a function of some of its weights, in double precision on the CPU.

    Attributes:
        gated: a copy of the model, in evaluation.
        x: (rows, ...), inputs. y: (rows, ...), targets.
        names: of the tensors that are integrated out.
        start: (weights,), where each search for a mode begins.
        variance: (weights,), of their prior.
        enough: nats that a Newton step would still gain, where a mode is taken to be reached.
    """

    gated: GatedModel
    x: Any
    y: Tensor
    names: tuple[str, ...]
    start: Tensor
    variance: Tensor
    enough: float = DECREMENT

    @staticmethod
    def of(gated: GatedModel, rows: Pair, names: tuple[str, ...], enough: float = DECREMENT) -> MaskEvidence:
        """The problem of a model and its rows.

        Args:
            gated: left alone.
            rows: (inputs, targets), training rows.
            names: tensors to integrate out.
            enough: as the attribute.
        """
        copy = copy_of(gated).cpu().double().eval().requires_grad_(False)
        x, y = rows[0].to("cpu"), rows[1].to("cpu")
        y = copy.likelihood.taught(x, y)
        x = x.double() if isinstance(x, Tensor) and x.is_floating_point() else x
        y = y.double() if y.is_floating_point() else y
        tensors = copy.weight_tensors()
        start = torch.cat([tensors[name].detach().reshape(-1) for name in names])
        variance = torch.cat(
            [
                torch.as_tensor(copy.weight_scale(n), dtype=torch.double)
                .square()
                .expand(tensors[n].shape)
                .reshape(-1)
                for n in names
            ]
        )
        return MaskEvidence(copy, x, y, names, start, variance, enough)

    def beside(self, mode: Tensor) -> Tensor:
        """(weights,), where the search begins for a mask beside one whose mode is known.

        Weights that the other mask did not need have their prior's mode there, at which a unit that comes
        back says nothing, and has no slope to leave it by: they begin where they were.

        Args:
            mode: (weights,), under the other mask.
        """
        return torch.where(mode.abs() > UNUSED * self.variance.sqrt(), mode, self.start)

    def log_evidence(self, mask: Tensor, begin: Tensor | None = None) -> tuple[float, Tensor, bool]:
        """Log of the integral over the weights, nats, the mode, and whether it was reached.

        Args:
            mask: (units of all groups,), zeros and ones.
            begin: (weights,), where the search begins; by default at ``start``.
        """
        gates, w = self.gated.by_group(mask.double()), self.start if begin is None else begin
        here, reached = self._energy(w, gates), False
        for _ in range(MOST_STEPS):
            slope, curvature = self._derivatives(w, gates)
            factor = torch.linalg.cholesky(curvature)
            step = -torch.cholesky_solve(slope[:, None], factor)[:, 0]
            gain = -float(slope @ step) / 2
            reached = gain < self.enough
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
        return energy if math.isfinite(energy) else float("inf")

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
