"""Poisson: counts, by their log rates."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from bayesprune.likelihoods.base import Frame, Likelihood
from bayesprune.likelihoods.output_range import OutputRange
from bayesprune.likelihoods.shapes import as_columns, column_problems, log_shares, output_problems


class Poisson(Likelihood):
    r"""Counts: y ~ Poisson(exp(outputs)).

    Outputs are (..., batch, d), log rates; targets (batch, d), or (batch,) for d = 1, counts of any type. A
    row's nats are summed over d. The score is the unit deviance 2 (y log(y / rate) - y + rate), zero for a
    perfect fit. ``fit`` learns log rates relative to that of the mean count; what ships has it in its last
    bias.

    Args:
        rows: rows of the whole training set, > 0.
        output: which part of what the network returns is read, see ``Likelihood``.
        target: the targets' name in a batch that is a dict, see ``Likelihood``.

    Example:
        >>> import torch
        >>> from bayesprune.likelihoods import Poisson
        >>> Poisson(rows=100).nll(torch.zeros(2, 1), torch.tensor([0, 1]))
        tensor([1., 1.])
    """

    asks_for_targets = True

    def forward(self, outputs: Tensor) -> Any:
        """Poisson with the d counts as one event, batch shape (..., batch)."""
        return dist.Poisson(outputs.exp()).to_event(1)

    def observe(self, targets: Tensor) -> Tensor:
        """(batch, d), floating point."""
        columns = as_columns(targets)
        return columns if columns.is_floating_point() else columns.to(torch.get_default_dtype())

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(..., batch), nats; from the log rate itself, so that a rate that rounds to zero stays finite."""
        counts = self.observe(targets)
        return (outputs.exp() - counts * outputs + torch.lgamma(counts + 1)).sum(-1)

    def teacher_nats(self, outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """(..., batch), nats: T² Σ_d [λ' log(λ'/λ) − λ' + λ], λ = exp(outputs / T)."""
        u, v = teacher / temperature, outputs / temperature
        return temperature**2 * (u.exp() * (u - v) - u.exp() + v.exp()).sum(-1)

    def pooled(self, outputs: Tensor, shares: Tensor) -> Tensor:
        """(batch, d), logarithms of the mean rates."""
        return (outputs + log_shares(shares, outputs)).logsumexp(0)

    def frame(self, targets: Tensor) -> Frame | None:
        """Log mean counts (columns,), from which log rates are learnt; their unit is 1."""
        means = as_columns(targets).double().mean(0)
        return Frame(means.log(), means.new_ones(())) if bool((means > 0).all()) else None

    def explains(self, outputs: Tensor, targets: Tensor) -> bool:
        """Whether the network is better than the mean counts."""
        means = self.observe(targets).mean(0).log().expand(outputs.shape)
        return bool(self.nll(outputs, targets).mean() < self.nll(means, targets).mean())

    def doubt(self, seen: OutputRange) -> str | None:
        """Rates taken for their logarithms: no rate is then below one."""
        if seen.low < 0:
            return None
        return (
            "outputs are never below 0 whatever the weights, and are taken for log rates: leave the last "
            "exp, Softplus or ReLU out."
        )

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(...), unit deviances, summed over d and over the batch."""
        counts = self.observe(targets)
        fit = torch.xlogy(counts, counts) - counts * outputs - counts + outputs.exp()
        return 2 * fit.sum(-1).sum(-1)

    def problems(self, outputs: Tensor, targets: Tensor) -> list[str]:
        """Every reason why these outputs and targets do not fit; empty if they do."""
        found = output_problems(outputs) + column_problems(outputs, targets)
        if targets.dtype == torch.bool:
            found.append("targets have type torch.bool, and must be counts: use Bernoulli for yes or no.")
        elif bool(((targets < 0) | (targets != targets.round())).any()):
            found.append("targets hold numbers that are no counts: Poisson needs whole numbers from 0.")
        return found
