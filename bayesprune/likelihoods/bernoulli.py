"""Bernoulli: yes or no, for one label or several."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from bayesprune.likelihoods.base import Likelihood
from bayesprune.likelihoods.output_range import OutputRange
from bayesprune.likelihoods.shapes import as_columns, column_problems, log_shares, output_problems


class Bernoulli(Likelihood):
    r"""Yes or no: p(y = 1) = sigmoid(outputs).

    Outputs are (..., batch, d), log-odds; targets (batch, d), or (batch,) for d = 1, zeros and ones of any
    type. A row's nats are summed over d labels.

    Args:
        rows: rows of the whole training set, > 0.
        output: which part of what the network returns is read, see ``Likelihood``.
        target: the targets' name in a batch that is a dict, see ``Likelihood``.

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
        columns = as_columns(targets)
        return columns if columns.is_floating_point() else columns.to(torch.get_default_dtype())

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(..., batch), nats: the binary cross-entropy, which is fused and equals -log_prob."""
        labels = self.observe(targets).to(outputs.dtype).expand(outputs.shape)
        return binary_cross_entropy_with_logits(outputs, labels, reduction="none").sum(-1)

    def teacher_nats(self, outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """(..., batch), nats: T² Σ_d KL(p'_d ‖ p_d) of yes and no, p = sigmoid(outputs / T)."""
        u, v = teacher / temperature, outputs / temperature
        yes = u.sigmoid() * (logsigmoid(u) - logsigmoid(v))
        no = (-u).sigmoid() * (logsigmoid(-u) - logsigmoid(-v))
        return temperature**2 * (yes + no).sum(-1)

    def pooled(self, outputs: Tensor, shares: Tensor) -> Tensor:
        """(batch, d), log-odds of the mean probabilities."""
        log_share = log_shares(shares, outputs)
        return (logsigmoid(outputs) + log_share).logsumexp(0) - (logsigmoid(-outputs) + log_share).logsumexp(
            0
        )

    def doubt(self, seen: OutputRange) -> str | None:
        """Probabilities taken for log-odds: all labels are then more probable than not."""
        if seen.within_unit:
            return (
                "outputs lie in [0, 1] whatever the weights, and are taken for log-odds: leave the last "
                "Sigmoid out."
            )
        if seen.low >= 0 or seen.high <= 0:
            side = "below 0" if seen.low >= 0 else "above 0"
            return (
                f"outputs are never {side} whatever the weights, and are taken for log-odds: end in a Linear "
                "layer."
            )
        return None

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(...), 100 for each wrong label, mean over d, summed over the batch."""
        wrong = (outputs > 0) != (self.observe(targets) > 0.5)
        return 100.0 * wrong.to(outputs.dtype).mean(-1).sum(-1)

    def problems(self, outputs: Tensor, targets: Tensor) -> list[str]:
        """Every reason why these outputs and targets do not fit; empty if they do."""
        found = output_problems(outputs) + column_problems(outputs, targets)
        strange = targets[(targets != 0) & (targets != 1)]
        if strange.numel():
            found.append(
                f"targets hold {strange.flatten()[0].item()!r}, and must be zeros and ones: recode them."
            )
        return found
