"""Gaussian: real targets under noise of one scale, known or learnt."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from bayesprune.errors import LikelihoodError
from bayesprune.likelihoods.base import Frame, Likelihood
from bayesprune.likelihoods.parts import Part
from bayesprune.likelihoods.shapes import as_columns, column_problems, output_problems

LEAST = 1e-3
"""A learnt scale stays above this share of the targets' standard deviation, where a network interpolates."""

ALIKE = 1e-12
"""Targets whose standard deviation is at most this share of their size differ by rounding alone."""

MOST = 1e15
"""Targets are learnt from up to this size, and from a standard deviation of one part in it on."""


class Gaussian(Likelihood):
    r"""Real targets with one noise scale: y ~ N(outputs, scale² I).

    Outputs are (..., batch, d); targets (batch, d), or (batch,) for d = 1. A row's nats are summed over d.

    A scale that is learnt is the maximiser of the expected log-likelihood, which has a closed form: with r
    the residuals under the gates as they are drawn,

    .. math:: \hat\sigma^2 = E_q[\lVert r \rVert^2] / (N d),

    and ``fit`` follows it, from the targets' own spread, by an average over the steps of the last epoch;
    other inferences move ``log_scale``, a parameter, from ``scale`` on.

    Targets may have any mean and any unit. Where the scale is learnt nothing is known of the unit, and
    ``fit`` learns in standard deviations of the targets: the layers compute (outputs − mean) / sd, so that
    weights' priors and learning rates mean what they mean for targets of mean 0 and standard deviation 1,
    and what ships speaks in the targets' unit, by its last layer. One sd is taken for all columns, since
    they share the scale. Where the scale is known the model is taken as it is written, in the targets' unit.

    Args:
        rows: rows of the whole training set, > 0.
        scale: standard deviation of the noise, > 0, in the unit of the targets; of one that is learnt, what
            other inferences than ``fit`` start from.
        learn_scale: make ``log_scale`` a parameter.
        standardise: learn in standard deviations of the targets; by default where the scale is learnt.
        output: which part of what the network returns is read, see ``Likelihood``.
        target: the targets' name in a batch that is a dict, see ``Likelihood``.

    Raises:
        LikelihoodError: a scale that is not a positive finite number.

    Example:
        >>> import torch
        >>> from bayesprune.likelihoods import Gaussian
        >>> likelihood = Gaussian(rows=500, scale=1.0)
        >>> likelihood.nll(torch.zeros(2, 1), torch.tensor([0.0, 1.0]))
        tensor([0.9189, 1.4189], grad_fn=<NegBackward0>)
    """

    score_name = "rmse"
    asks_for_targets = True
    log_scale: Tensor
    mean_square: Tensor
    seen: Tensor
    floor: Tensor

    def __init__(
        self,
        rows: int,
        scale: float = 1.0,
        learn_scale: bool = True,
        standardise: bool | None = None,
        output: Part = None,
        target: str = "labels",
    ) -> None:
        super().__init__(rows, output, target)
        if not (isinstance(scale, (int, float)) and 0 < scale < math.inf):
            raise LikelihoodError(f"Gaussian needs a positive finite scale, and got {scale!r}.")
        self.standardise = learn_scale if standardise is None else standardise
        log_scale = torch.tensor(math.log(scale))
        if learn_scale:
            self.register_buffer("mean_square", torch.zeros(()))  # of the residuals, over the last steps
            self.register_buffer("seen", torch.zeros(()))  # steps
            self.register_buffer("floor", torch.zeros(()))  # of the scale
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def forward(self, outputs: Tensor) -> Any:
        """Normal with the d targets as one event, batch shape (..., batch)."""
        return dist.Normal(outputs, self.log_scale.exp()).to_event(1)

    def observe(self, targets: Tensor) -> Tensor:
        """(batch, d)."""
        return as_columns(targets)

    def teacher_nats(self, outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """(..., batch), nats: ‖teacher − outputs‖² / 2σ² at any T; σ, the targets' noise, gets no gradient.

        The natural parameter is the mean over σ²: of T² KL(N(m'/T, σ²) ‖ N(m/T, σ²)) no T is left.
        """
        variance = (2 * self.log_scale.detach()).exp()
        return (teacher - outputs).square().sum(-1) / (2 * variance)

    def pooled(self, outputs: Tensor, shares: Tensor) -> Tensor:
        """(batch, d), the mean of the means."""
        return (shares.reshape(-1, *(1,) * (outputs.ndim - 1)) * outputs).sum(0)

    def learnt(self) -> dict[str, float]:
        """``noise_scale``, in the unit of the targets."""
        return {"noise_scale": math.exp(float(self.log_scale.detach()))}

    # ---- the targets' own unit

    def frame(self, targets: Tensor) -> Frame | None:
        """Mean (columns,) and standard deviation of the targets, pooled over columns.

        Raises:
            LikelihoodError: a scale is to be learnt of targets that are all alike, or of a size whose squares
                are no numbers of float32.
        """
        columns = as_columns(targets).double()
        deviation = (columns - columns.mean(0)).square().mean().sqrt()
        if self.followed():
            _check_spread(float(deviation), float(columns.abs().max()))
        if not self.standardise or not bool(deviation > 0):
            return None
        return Frame(columns.mean(0), deviation)

    def explains(self, outputs: Tensor, targets: Tensor) -> bool:
        """Whether the network is in the unit of the targets already, by its share of explained variance R².

        It is where R² ≥ 0.25; or, for one that knows little, where R² ≥ 0.01 and a regression on its outputs
        would hardly explain more. A fresh network hardly ever is, in any unit.
        """
        predicted, columns = outputs.double(), self.observe(targets).double()
        centred, spread = columns - columns.mean(0), predicted - predicted.mean(0)
        total = centred.square().sum()
        explained = 1 - (columns - predicted).square().sum() / total
        at_best = (centred * spread).sum().square() / (total * spread.square().sum())
        return bool(explained >= 0.25) or bool((explained >= 0.01) & (explained >= 0.9 * at_best))

    # ---- the scale, in closed form

    @torch.no_grad()
    def start_(self, outputs: Tensor, targets: Tensor, all_targets: Tensor) -> None:
        """The root mean square of the residuals, at most the targets' own standard deviation."""
        if not self.followed():
            return
        columns = self.observe(all_targets).double()
        deviation = (columns - columns.mean(0)).square().mean().sqrt()
        residual = (self.observe(targets).double() - outputs.double()).square().mean().sqrt()
        least = LEAST * deviation if bool(deviation > 0) else torch.finfo(torch.float32).tiny ** 0.5
        self.floor.fill_(float(least))
        self.log_scale.fill_(math.log(max(float(torch.minimum(residual, deviation)), float(least))))
        self.seen.zero_()

    def followed(self) -> tuple[nn.Parameter, ...]:
        """``log_scale``, if it is learnt."""
        return (self.log_scale,) if isinstance(self.log_scale, nn.Parameter) else ()

    @torch.no_grad()
    def follow_(self, targets: Tensor, window: int) -> None:
        """log σ ← ½ log (mean of r² over the last steps).

        The mean square of a batch is read from the slope of its mean NLL in log σ, d − ‖r‖² / σ², which every
        estimator of the gates' gradient weighs as it weighs the rows.
        """
        for log_scale in self.followed():
            if log_scale.grad is None:
                continue
            square = (2 * log_scale).exp() * (1 - log_scale.grad / self.observe(targets).shape[-1])
            square = square.clamp_min(0.0)
            self.seen += 1
            self.mean_square += (square - self.mean_square) / self.seen.clamp_max(window)
            log_scale.copy_(self.mean_square.sqrt().clamp_min(self.floor).log())
            log_scale.grad = None

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(...), squared errors, mean over d, summed over the batch."""
        return (outputs - self.observe(targets)).square().mean(-1).sum(-1)

    def mean_score(self, total: float, rows: int) -> float:
        """Root mean squared error, in the unit of the targets."""
        return math.sqrt(total / rows)

    def problems(self, outputs: Tensor, targets: Tensor) -> list[str]:
        """Every reason why these outputs and targets do not fit; empty if they do."""
        found = output_problems(outputs) + column_problems(outputs, targets)
        if not targets.is_floating_point():
            found.append(f"targets have type {targets.dtype}, and must be real: use targets.float().")
        elif not bool(targets.isfinite().all()):
            found.append(
                f"{int((~targets.isfinite()).sum())} targets are not finite: remove or impute these rows."
            )
        return found


def _check_spread(deviation: float, largest: float) -> None:
    if deviation <= ALIKE * largest:
        raise LikelihoodError(
            f"Gaussian: all targets are alike ({largest:.3g} in size), so that there is no noise whose scale "
            "could be learnt. Give targets that differ; or, where the noise is known, its scale= and "
            "learn_scale=False."
        )
    if not (deviation >= 1 / MOST and largest <= MOST):
        raise LikelihoodError(
            f"Gaussian: the targets have standard deviation {deviation:.3g} and go up to {largest:.3g}, "
            "whose squares are no numbers of float32. Give them in another unit, such as (y - y.mean()) / "
            "y.std()."
        )
