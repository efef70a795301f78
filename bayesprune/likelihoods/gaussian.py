"""Gaussian: real targets under noise of one scale, known or learnt."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from bayesprune.errors import LikelihoodError
from bayesprune.likelihoods.base import Likelihood
from bayesprune.likelihoods.shapes import as_columns, column_problems, output_problems


class Gaussian(Likelihood):
    r"""Real targets with one noise scale: y ~ N(outputs, scale² I).

    Outputs are (..., batch, d); targets (batch, d), or (batch,) for d = 1. A row's nats are summed over d.

    Args:
        rows: rows of the whole training set, > 0.
        scale: standard deviation of the noise (at the start), > 0, in the unit of the targets.
        learn_scale: make ``log_scale`` a parameter, trained with the weights.

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
    log_scale: Tensor

    def __init__(self, rows: int, scale: float = 1.0, learn_scale: bool = True) -> None:
        super().__init__(rows)
        if not (isinstance(scale, (int, float)) and 0 < scale < math.inf):
            raise LikelihoodError(f"Gaussian needs a positive finite scale, and got {scale!r}.")
        log_scale = torch.tensor(math.log(scale))
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def forward(self, outputs: Tensor) -> Any:
        """Normal with the d targets as one event, batch shape (..., batch)."""
        return dist.Normal(outputs, self.log_scale.exp()).to_event(1)

    def observe(self, targets: Tensor) -> Tensor:
        """(batch, d)."""
        return as_columns(targets)

    def learnt(self) -> dict[str, float]:
        """``noise_scale``, in the unit of the targets."""
        return {"noise_scale": math.exp(float(self.log_scale.detach()))}

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
