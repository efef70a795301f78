"""Categorical: one of several classes."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bayesprune.likelihoods.base import Likelihood
from bayesprune.likelihoods.output_range import OutputRange
from bayesprune.likelihoods.shapes import log_shares, output_problems, row_problems


class Categorical(Likelihood):
    r"""One of C classes: log p(y) = outputs_y - log Σ_c exp(outputs_c).

    Outputs are (..., batch, classes), log-odds up to a constant; targets (batch,), int64 in 0..classes-1.

    Args:
        rows: rows of the whole training set, > 0.
        output: which part of what the network returns is read, see ``Likelihood``.
        target: the targets' name in a batch that is a dict, see ``Likelihood``.

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
        if outputs.dim() == 2:
            return cross_entropy(outputs, targets, reduction="none")
        labels = targets.expand(outputs.shape[:-1])
        losses = cross_entropy(outputs.reshape(-1, outputs.shape[-1]), labels.reshape(-1), reduction="none")
        return losses.reshape(labels.shape)

    def teacher_nats(self, outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """(..., batch), nats: T² Σ_c p'_c log(p'_c / p_c), p = softmax(outputs / T)."""
        log_p = (teacher / temperature).log_softmax(-1)
        log_q = (outputs / temperature).log_softmax(-1)
        return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1)  # autocast would halve a dot product

    def pooled(self, outputs: Tensor, shares: Tensor) -> Tensor:
        """(batch, classes), logarithms of the mean class probabilities."""
        return (outputs.log_softmax(-1) + log_shares(shares, outputs)).logsumexp(0)

    def doubt(self, seen: OutputRange) -> str | None:
        """Probabilities taken for log-odds: the softmax of a softmax is nearly uniform."""
        if not seen.within_unit:
            return None
        sums = " and sum to one" if seen.sums_to_one else ""
        return (
            f"outputs lie in [0, 1]{sums} whatever the weights, and are taken for log-odds: leave the last "
            "Softmax or Sigmoid out."
        )

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(...), 100 for each row whose most probable class is wrong."""
        return 100.0 * (outputs.argmax(-1) != targets).sum(-1)

    def problems(self, outputs: Tensor, targets: Tensor) -> list[str]:
        """Every reason why these outputs and targets do not fit; empty if they do."""
        found = output_problems(outputs)
        if outputs.dim() >= 2 and outputs.shape[-1] < 2:
            found.append(
                "outputs have one column, and need one for each class: use Bernoulli for two classes."
            )
        if targets.dtype != torch.int64:
            found.append(f"targets have type {targets.dtype}, and must be class numbers: use targets.long().")
        if targets.dim() != 1:
            found.append(f"targets have shape {tuple(targets.shape)}, not (batch,): {_remedy(targets)}.")
        found += row_problems(outputs, targets)
        if not found and targets.numel():
            low, high, classes = int(targets.min()), int(targets.max()), outputs.shape[-1]
            if low < 0 or high >= classes:
                found.append(
                    f"targets run from {low} to {high}, and the network has {classes} outputs: labels must "
                    f"lie in 0..{classes - 1}; shift them, or widen the last layer."
                )
        return found


def _remedy(targets: Tensor) -> str:
    """What to do with targets that are not one number a row."""
    if targets.dim() == 2 and targets.shape[1] == 1:  # argmax would make class 0 of all
        return "use targets.squeeze(1)"
    if targets.dim() == 2:
        return "use targets.argmax(1) where they are one-hot rows"
    return "one class is read a row; for one a pixel or position take Own, with .to_event()"
