"""Own: any likelihood, given as a function from outputs to a distribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from bayesprune.errors import LikelihoodError
from bayesprune.likelihoods.base import Likelihood
from bayesprune.likelihoods.parts import Part
from bayesprune.likelihoods.strangers import captured


class Own(Likelihood):
    r"""Any likelihood, by a function from outputs to a Pyro distribution.

    Args:
        rows: rows of the whole training set, > 0.
        distribution: function of the outputs (..., batch, ...); it returns a distribution of batch shape
            (..., batch): several targets of a row belong into the event, with ``.to_event(1)``.
        output: which part of what the network returns is read, see ``Likelihood``.
        target: the targets' name in a batch that is a dict, see ``Likelihood``.

    Parameters that are to be learnt beside the network's belong into an ``nn.Module`` that is handed over as
    ``distribution``: it then holds them, and ``fit`` moves them.

    Raises:
        LikelihoodError: ``distribution`` cannot be called, or brings parameters along that nobody would move.

    Example:
        >>> import pyro.distributions as dist
        >>> import torch
        >>> from bayesprune.likelihoods import Own
        >>> robust = Own(rows=500, distribution=lambda out: dist.StudentT(4.0, out[..., 0], 1.0))
        >>> robust.nll(torch.zeros(2, 1), torch.tensor([0.0, 0.0]))
        tensor([0.9808, 0.9808])
        >>> class Robust(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.log_scale = torch.nn.Parameter(torch.zeros(()))
        ...
        ...     def forward(self, out):
        ...         return dist.StudentT(4.0, out[..., 0], self.log_scale.exp())
        >>> [name for name, _ in Own(rows=500, distribution=Robust()).named_parameters()]
        ['distribution.log_scale']
    """

    def __init__(
        self,
        rows: int,
        distribution: Callable[[Tensor], Any],
        output: Part = None,
        target: str = "labels",
    ) -> None:
        super().__init__(rows, output, target)
        if not callable(distribution):
            raise LikelihoodError(
                f"Own needs a function from outputs to a distribution, and got {distribution!r}: "
                "wrap it, distribution=lambda outputs: ..."
            )
        brought = captured(distribution)
        if brought:
            raise LikelihoodError(
                f"Own: distribution= brings {', '.join(brought)} along, which would get gradients and never "
                "a step. Hand it over in an nn.Module that holds it and whose forward(outputs) returns the "
                "distribution; or, where it is a constant, requires_grad_(False) or detach() it."
            )
        self.distribution = distribution

    def forward(self, outputs: Tensor) -> Any:
        """What the given function returns."""
        return self.distribution(outputs)

    def no_teacher(self) -> str:
        """Nobody knows what the outputs are of."""
        return (
            "what outputs mean to the distribution= of Own is not known, nor how far one is from a "
            "teacher's: " + super().no_teacher().partition(": ")[2]
        )

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
