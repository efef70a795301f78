"""Likelihoods: from a network's outputs to nats per row, always scaled by the rows of the data set."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from bayesprune.errors import LikelihoodError


class Likelihood(nn.Module):
    r"""Base of the likelihoods: p(targets | outputs), rows independent.

    The ELBO of a batch B is scaled to the data set by ``rows``, :math:`\frac{N}{|B|} \sum_{n \in B} \log
    p(y_n)`, so the price of a unit in nats means the same at every batch size. A likelihood of your own
    overrides ``forward``, and more only where the defaults do not fit.

    Args:
        rows: rows N of the whole training set (not of a batch), > 0.

    Raises:
        LikelihoodError: ``rows`` is not a positive whole number.
    """

    score_name: str = "deviance"
    """What ``score`` measures: 'error_percent', 'rmse' or 'deviance'."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        if isinstance(rows, bool) or not isinstance(rows, int) or rows <= 0:
            raise LikelihoodError(
                f"{type(self).__name__} needs rows= as a positive whole number, and got {rows!r}: pass the "
                "number of rows of the whole training set, len(x_train), not of a batch."
            )
        self.rows = rows

    def forward(self, outputs: Tensor) -> Any:
        """The Pyro distribution of the targets.

        Args:
            outputs: (..., batch, ...), what the network returns.

        Returns:
            A distribution with batch shape (..., batch).
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(outputs) -> distribution.")

    def observe(self, targets: Tensor) -> Tensor:
        """Targets in the shape and type that ``forward``'s distribution scores: pass this as ``obs=``."""
        return targets

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood of each row.

        Args:
            outputs: (..., batch, ...), what the network returns.
            targets: (batch, ...), as the data set holds them.

        Returns:
            (..., batch), nats per row.
        """
        result: Tensor = -self(outputs).log_prob(self.observe(targets))
        return result

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Quality of each row, summed over the batch, for ``mean_score``; here the deviance 2 · nll.

        Args:
            outputs: (..., batch, ...), what the network returns.
            targets: (batch, ...), as the data set holds them.

        Returns:
            (...), a sum that adds up over batches.
        """
        return 2 * self.nll(outputs, targets).sum(-1)

    def mean_score(self, total: float, rows: int) -> float:
        """The number named ``score_name``, from the ``score`` of every batch added up.

        Args:
            total: sum of ``score`` over the batches.
            rows: number of rows that were scored.
        """
        return total / rows

    def validate(self, outputs: Tensor, targets: Tensor) -> None:
        """Check outputs and targets once, before training.

        Args:
            outputs: (..., batch, ...), what the network returns for some rows.
            targets: (batch, ...), the targets of these rows.

        Raises:
            LikelihoodError: everything that does not fit, in one message: place, value and remedy.
        """
        problems = self.problems(outputs, targets)
        if problems:
            raise LikelihoodError(f"{type(self).__name__}: " + " ".join(problems))

    def problems(self, outputs: Tensor, targets: Tensor) -> list[str]:
        """Every reason why these outputs and targets do not fit; empty if they do."""
        return []


class Categorical(Likelihood):
    r"""One of C classes: log p(y) = outputs_y - log Σ_c exp(outputs_c).

    Outputs are (..., batch, classes), log-odds up to a constant; targets (batch,), int64 in 0..classes-1.

    Args:
        rows: rows of the whole training set, > 0.

    Example:
        >>> import torch
        >>> from bayesprune.likelihoods import Categorical
        >>> likelihood = Categorical(rows=60_000)
        >>> likelihood.nll(torch.zeros(2, 10), torch.tensor([3, 7]))
        tensor([2.3026, 2.3026])
    """

    score_name = "error_percent"

    def forward(self, outputs: Tensor) -> Any:
        """Categorical over the classes, batch shape (..., batch)."""
        return dist.Categorical(logits=outputs)

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(..., batch), nats: the cross-entropy, which is fused and equals -log_prob."""
        labels = targets.expand(outputs.shape[:-1])
        losses = cross_entropy(outputs.reshape(-1, outputs.shape[-1]), labels.reshape(-1), reduction="none")
        return losses.reshape(labels.shape)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(...), 100 for each row whose most probable class is wrong."""
        return 100.0 * (outputs.argmax(-1) != targets).sum(-1)

    def problems(self, outputs: Tensor, targets: Tensor) -> list[str]:
        """Every reason why these outputs and targets do not fit; empty if they do."""
        found = _output_problems(outputs)
        if outputs.dim() >= 2 and outputs.shape[-1] < 2:
            found.append(
                "outputs have one column, and need one for each class: use Bernoulli for two classes."
            )
        if targets.dtype != torch.int64:
            found.append(f"targets have type {targets.dtype}, and must be class numbers: use targets.long().")
        if targets.dim() != 1:
            found.append(
                f"targets have shape {tuple(targets.shape)}, not (batch,): use argmax(-1) on one-hot rows."
            )
        found += _row_problems(outputs, targets)
        if not found and targets.numel():
            low, high, classes = int(targets.min()), int(targets.max()), outputs.shape[-1]
            if low < 0 or high >= classes:
                found.append(
                    f"targets run from {low} to {high}, and the network has {classes} outputs: labels must "
                    f"lie in 0..{classes - 1}; shift them, or widen the last layer."
                )
        return found


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
        return _as_columns(targets)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(...), squared errors, mean over d, summed over the batch."""
        return (outputs - self.observe(targets)).square().mean(-1).sum(-1)

    def mean_score(self, total: float, rows: int) -> float:
        """Root mean squared error, in the unit of the targets."""
        return math.sqrt(total / rows)

    def problems(self, outputs: Tensor, targets: Tensor) -> list[str]:
        """Every reason why these outputs and targets do not fit; empty if they do."""
        found = _output_problems(outputs) + _column_problems(outputs, targets)
        if not targets.is_floating_point():
            found.append(f"targets have type {targets.dtype}, and must be real: use targets.float().")
        elif not bool(targets.isfinite().all()):
            found.append(
                f"{int((~targets.isfinite()).sum())} targets are not finite: remove or impute these rows."
            )
        return found


class Bernoulli(Likelihood):
    r"""Yes or no: p(y = 1) = sigmoid(outputs).

    Outputs are (..., batch, d), log-odds; targets (batch, d), or (batch,) for d = 1, zeros and ones of any
    type. A row's nats are summed over d labels.

    Args:
        rows: rows of the whole training set, > 0.

    Example:
        >>> import torch
        >>> from bayesprune.likelihoods import Bernoulli
        >>> Bernoulli(rows=100).nll(torch.zeros(2, 1), torch.tensor([0, 1]))
        tensor([0.6931, 0.6931])
    """

    score_name = "error_percent"

    def forward(self, outputs: Tensor) -> Any:
        """Bernoulli with the d labels as one event, batch shape (..., batch)."""
        return dist.Bernoulli(logits=outputs).to_event(1)

    def observe(self, targets: Tensor) -> Tensor:
        """(batch, d), floating point."""
        columns = _as_columns(targets)
        return columns if columns.is_floating_point() else columns.to(torch.get_default_dtype())

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(..., batch), nats: the binary cross-entropy, which is fused and equals -log_prob."""
        labels = self.observe(targets).to(outputs.dtype).expand(outputs.shape)
        return binary_cross_entropy_with_logits(outputs, labels, reduction="none").sum(-1)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(...), 100 for each wrong label, mean over d, summed over the batch."""
        wrong = (outputs > 0) != (self.observe(targets) > 0.5)
        return 100.0 * wrong.to(outputs.dtype).mean(-1).sum(-1)

    def problems(self, outputs: Tensor, targets: Tensor) -> list[str]:
        """Every reason why these outputs and targets do not fit; empty if they do."""
        found = _output_problems(outputs) + _column_problems(outputs, targets)
        strange = targets[(targets != 0) & (targets != 1)]
        if strange.numel():
            found.append(
                f"targets hold {strange.flatten()[0].item()!r}, and must be zeros and ones: recode them."
            )
        return found


class Poisson(Likelihood):
    r"""Counts: y ~ Poisson(exp(outputs)).

    Outputs are (..., batch, d), log rates; targets (batch, d), or (batch,) for d = 1, counts of any type. A
    row's nats are summed over d. The score is the unit deviance 2 (y log(y / rate) - y + rate), zero for a
    perfect fit.

    Args:
        rows: rows of the whole training set, > 0.

    Example:
        >>> import torch
        >>> from bayesprune.likelihoods import Poisson
        >>> Poisson(rows=100).nll(torch.zeros(2, 1), torch.tensor([0, 1]))
        tensor([1., 1.])
    """

    def forward(self, outputs: Tensor) -> Any:
        """Poisson with the d counts as one event, batch shape (..., batch)."""
        return dist.Poisson(outputs.exp()).to_event(1)

    def observe(self, targets: Tensor) -> Tensor:
        """(batch, d), floating point."""
        columns = _as_columns(targets)
        return columns if columns.is_floating_point() else columns.to(torch.get_default_dtype())

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(..., batch), nats; from the log rate itself, so that a rate that rounds to zero stays finite."""
        counts = self.observe(targets)
        return (outputs.exp() - counts * outputs + torch.lgamma(counts + 1)).sum(-1)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(...), unit deviances, summed over d and over the batch."""
        counts = self.observe(targets)
        fit = torch.xlogy(counts, counts) - counts * outputs - counts + outputs.exp()
        return 2 * fit.sum(-1).sum(-1)

    def problems(self, outputs: Tensor, targets: Tensor) -> list[str]:
        """Every reason why these outputs and targets do not fit; empty if they do."""
        found = _output_problems(outputs) + _column_problems(outputs, targets)
        if targets.dtype == torch.bool:
            found.append("targets have type torch.bool, and must be counts: use Bernoulli for yes or no.")
        elif bool(((targets < 0) | (targets != targets.round())).any()):
            found.append("targets hold numbers that are no counts: Poisson needs whole numbers from 0.")
        return found


class Own(Likelihood):
    r"""Any likelihood, by a function from outputs to a Pyro distribution.

    Args:
        rows: rows of the whole training set, > 0.
        distribution: function of the outputs (..., batch, ...); it returns a distribution of batch shape
            (..., batch): several targets of a row belong into the event, with ``.to_event(1)``.

    Raises:
        LikelihoodError: ``distribution`` cannot be called.

    Example:
        >>> import pyro.distributions as dist
        >>> import torch
        >>> from bayesprune.likelihoods import Own
        >>> robust = Own(rows=500, distribution=lambda out: dist.StudentT(4.0, out[..., 0], 1.0))
        >>> robust.nll(torch.zeros(2, 1), torch.tensor([0.0, 0.0]))
        tensor([0.9808, 0.9808])
    """

    def __init__(self, rows: int, distribution: Callable[[Tensor], Any]) -> None:
        super().__init__(rows)
        if not callable(distribution):
            raise LikelihoodError(
                f"Own needs a function from outputs to a distribution, and got {distribution!r}: "
                "wrap it, distribution=lambda outputs: ..."
            )
        self.distribution = distribution

    def forward(self, outputs: Tensor) -> Any:
        """What the given function returns."""
        return self.distribution(outputs)

    def problems(self, outputs: Tensor, targets: Tensor) -> list[str]:
        """Every reason why these outputs and targets do not fit; empty if they do."""
        result = self(outputs)
        if not callable(getattr(result, "log_prob", None)):
            return [f"distribution(outputs) returned {type(result).__name__}: return a Pyro distribution."]
        batch = tuple(result.batch_shape)
        if targets.dim() == 0 or not batch or batch[-1] != targets.shape[0]:
            return [
                f"distribution(outputs) has batch shape {batch}, event shape {tuple(result.event_shape)}; "
                f"targets have shape {tuple(targets.shape)}; the last batch dimension must be the rows: "
                "move the rest of a row into the event, .to_event(1), or drop a column, outputs[..., 0]."
            ]
        try:
            shape = tuple(self.nll(outputs, targets).shape)
        except (ValueError, RuntimeError, TypeError) as error:
            return [f"distribution(outputs) cannot score targets of shape {tuple(targets.shape)}: {error}"]
        if shape != batch:
            return [f"nll has shape {shape}, not {batch}: give targets the event shape of the distribution."]
        return []


def _as_columns(targets: Tensor) -> Tensor:
    """(batch,) as (batch, 1); anything else as it is."""
    return targets.unsqueeze(-1) if targets.dim() == 1 else targets


def _output_problems(outputs: Tensor) -> list[str]:
    found = []
    if outputs.dim() < 2:
        found.append(
            f"outputs have shape {tuple(outputs.shape)}, and need (batch, columns): end the network in a "
            "Linear layer and leave out squeeze()."
        )
    if not outputs.is_floating_point():
        found.append(f"outputs have type {outputs.dtype}, and must be real.")
    return found


def _row_problems(outputs: Tensor, targets: Tensor) -> list[str]:
    if outputs.dim() < 2 or targets.dim() < 1 or outputs.shape[-2] == targets.shape[0]:
        return []
    return [
        f"outputs have {outputs.shape[-2]} rows and targets {targets.shape[0]}: pass those of the same rows."
    ]


def _column_problems(outputs: Tensor, targets: Tensor) -> list[str]:
    if targets.dim() not in (1, 2):
        return [f"targets have shape {tuple(targets.shape)}, and must be (batch,) or (batch, columns)."]
    found = _row_problems(outputs, targets)
    columns = _as_columns(targets).shape[-1]
    if outputs.dim() >= 2 and outputs.shape[-1] != columns:
        found.append(
            f"outputs have {outputs.shape[-1]} columns and targets {columns}: the last layer needs as many."
        )
    return found
