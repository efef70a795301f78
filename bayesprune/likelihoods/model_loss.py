"""ModelLoss: the loss that a network computes by itself."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from bayesprune.likelihoods.base import Likelihood
from bayesprune.likelihoods.parts import Part


class ModelLoss(Likelihood):
    r"""A network's own loss, the mean over a batch of rows of -log p(targets | inputs), in nats.

    The network is given the targets among its inputs, by name, as models of ``transformers`` take ``labels``,
    and returns its loss: a number, or one for each row. A loss that is a number is the same for all rows of a
    batch: it can be learnt from and evaluated; evidence and log-likelihoods of single rows need nats that are
    known by the row, as ``Categorical(rows, output="logits")`` has them.

    Args:
        rows: rows of the whole training set, > 0.
        output: which part of what the network returns is its loss, see ``Likelihood``.
        target: the name of the targets among the inputs.

    Example:
        >>> import torch
        >>> from bayesprune.likelihoods import ModelLoss
        >>> likelihood = ModelLoss(rows=500)
        >>> outputs = {"loss": torch.tensor(0.7), "logits": torch.zeros(2, 3)}
        >>> likelihood.nll(likelihood.part(outputs, rows=2), torch.tensor([0, 1]))
        tensor([0.7000, 0.7000])
    """

    score_name = "loss"
    by_row = False

    def __init__(self, rows: int, output: Part = "loss", target: str = "labels") -> None:
        super().__init__(rows, output, target)

    def part(self, outputs: Any, rows: int) -> Tensor:
        """(rows,), nats: of each row, or the batch's mean for all."""
        loss = super().part(outputs, rows)
        return loss.expand(rows) if loss.ndim == 0 else loss

    def forward(self, outputs: Tensor) -> Any:
        """A distribution of which nothing is known but the density of what was observed."""
        return _Density(outputs)

    def observe(self, targets: Tensor) -> Tensor:
        """(batch,) zeros: the targets are in the loss already."""
        return torch.zeros(len(targets), device=targets.device)

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(..., batch), nats."""
        return outputs

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(...), nats of the batch."""
        return outputs.sum(-1)

    def no_teacher(self) -> str:
        """A loss is no output that a teacher could be compared with."""
        return (
            "ModelLoss has the loss that the network computes by itself, and no outputs to compare with a "
            "teacher's: take a likelihood of its outputs, as bp.Categorical(rows=…, output='logits')"
        )

    def problems(self, outputs: Tensor, targets: Tensor) -> list[str]:
        """Every reason why these outputs are no losses of rows; empty if they are."""
        if outputs.ndim != 1 or not outputs.is_floating_point():
            return [
                f"the loss has shape {tuple(outputs.shape)} and type {outputs.dtype}, and must be a real "
                "number, or one for each row."
            ]
        return []


class _Density(TorchDistribution):
    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support = constraints.real

    def __init__(self, nats: Tensor) -> None:
        self.nats = nats
        super().__init__(nats.shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        return _Density(self.nats.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Of what was observed, whatever is asked."""
        return -self.nats + 0 * value
