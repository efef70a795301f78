"""What every likelihood can do: nats per row, a score, and a check of outputs and targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bayesprune.errors import LikelihoodError
from bayesprune.likelihoods.output_range import OutputRange
from bayesprune.likelihoods.parts import Part, part_of
from bayesprune.likelihoods.strangers import strangers
from bayesprune.rows import Inputs


@dataclass(frozen=True)
class Frame:
    """Outputs are location + unit · (what the layers compute).

    Attributes:
        location: (columns,), double.
        unit: scalar, double, positive.
    """

    location: Tensor
    unit: Tensor


class Likelihood(nn.Module):
    r"""Base of the likelihoods: p(targets | outputs), rows independent.

    The ELBO of a batch B is scaled to the data set by ``rows``, :math:`\frac{N}{|B|} \sum_{n \in B} \log
    p(y_n)`, so the price of a unit in nats means the same at every batch size. A likelihood of your own
    overrides ``forward``, and more only where the defaults do not fit.

    Args:
        rows: rows N of the whole training set (not of a batch), > 0.
        output: which part of what the network returns is read: a name, as ``"logits"`` of a dict, a dataclass
            or a ``ModelOutput``; a number, of a tuple; or None, where it returns one tensor.
        target: under which name a batch that is a dict of inputs and targets has the targets.

    Raises:
        LikelihoodError: ``rows`` is not a positive whole number, or a name is none.
    """

    score_name: str = "deviance"
    """What ``score`` measures: 'error_percent', 'rmse' or 'deviance'."""

    asks_for_targets: bool = False
    """Whether ``frame`` and ``start_`` have to see all targets before a fit."""

    fitted: bool = False
    """Whether an inference has learnt its parameters, if it has any. ``fit`` learns on a copy: the
    likelihood that was handed to ``gate`` stays as it was."""

    output: Part = None
    target: str = "labels"

    by_row: bool = True
    """Whether ``nll`` is known of each row; else it is the mean of the batch for all of them."""

    def __init__(self, rows: int, output: Part = None, target: str = "labels") -> None:
        super().__init__()
        if isinstance(rows, bool) or not isinstance(rows, int) or rows <= 0:
            raise LikelihoodError(
                f"{type(self).__name__} needs rows= as a positive whole number, and got {rows!r}: pass the "
                "number of rows of the whole training set, len(x_train), not of a batch."
            )
        if isinstance(output, bool) or not (output is None or isinstance(output, str | int)):
            raise LikelihoodError(
                f"{type(self).__name__}: output={output!r} must be a name, such as 'logits', or a number."
            )
        if not isinstance(target, str) or not target:
            raise LikelihoodError(
                f"{type(self).__name__}: target={target!r} must be a name, such as 'labels'."
            )
        self.rows, self.output, self.target = rows, output, target

    def part(self, outputs: Any, rows: int) -> Tensor:
        """The part that is read of what a network returns.

        Args:
            outputs: a tensor, tuple, dict, dataclass or ``ModelOutput``.
            rows: that it was given.

        Raises:
            LikelihoodError: there is no such part, or none is named and there are several.
        """
        found: Tensor = part_of(outputs, self.output, type(self).__name__)
        return found

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

    # ---- a teacher, for ``Distilled``

    @property
    def plain(self) -> Likelihood:
        """The likelihood of targets alone, where one learns from a teacher too; else itself."""
        return self

    def taught(self, inputs: Inputs, targets: Tensor) -> Tensor:
        """Targets with what a teacher says of their rows; here as they are.

        Args:
            inputs: (rows, ...).
            targets: (rows, ...), of the same rows.
        """
        return targets

    def site(self, outputs: Tensor, targets: Tensor | None) -> Any:
        """The distribution by which Pyro scores ``observe(targets)``, as ``taught`` gave them.

        Args:
            outputs: (..., batch, ...), what the network returns.
            targets: (batch, ...), or None where they are to be drawn.
        """
        return self(outputs)

    def identity(self, targets: Tensor | None = None) -> str:
        """What must be equal for a training to go on from a checkpoint.

        Args:
            targets: (rows, ...), those of the training where they lie in memory, as ``taught`` gave them.
        """
        return type(self).__name__

    def teacher_nats(self, outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """T² KL(p(· | teacher / T) ‖ p(· | outputs / T)) of each row, outputs being natural parameters.

        Args:
            outputs: (..., batch, ...), what the network returns.
            teacher: (batch, ...), what a teacher returns.
            temperature: T, > 0.

        Returns:
            (..., batch), nats per row.
        """
        raise LikelihoodError(f"Distilled: {self.no_teacher()}.")

    def pooled(self, outputs: Tensor, shares: Tensor) -> Tensor:
        """The outputs of the member of the family whose mean is that of a mixture.

        Args:
            outputs: (members, batch, ...), what several networks return.
            shares: (members,), of each in the mixture; they sum to one.

        Returns:
            (batch, ...).
        """
        raise LikelihoodError(f"Distilled: {self.no_teacher()}.")

    def no_teacher(self) -> str:
        """Why it has no ``teacher_nats``, and what to do."""
        return (
            f"of {type(self).__name__} no divergence from a teacher is known: take bp.Categorical, "
            "bp.Bernoulli, bp.Gaussian or bp.Poisson; or define teacher_nats(outputs, teacher, temperature) "
            "and pooled(outputs, shares) in a class of your own"
        )

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

    def guesses(self) -> tuple[str, ...]:
        """Names of the parameters whose values are still those that they started from, and were to be learnt.

        None after ``fit``, and none where they are frozen: ``requires_grad_(False)`` says that they are
        known, or were learnt elsewhere.
        """
        return () if self.fitted else tuple(n for n, p in self.named_parameters() if p.requires_grad)

    def learnt(self) -> dict[str, float]:
        """What was learnt beside the network, as plain numbers for ``result.json``: by default every scalar.

        Example:
            >>> from bayesprune.likelihoods import Gaussian
            >>> Gaussian(rows=500, scale=1.0).learnt()
            {'noise_scale': 1.0}
        """
        return {n.replace(".", "_"): float(p.detach()) for n, p in self.named_parameters() if p.numel() == 1}

    def doubt(self, seen: OutputRange) -> str | None:
        """What is to be said of a network whose outputs keep to a range whatever its weights; None here."""
        return None

    # ---- the targets' own unit, and parameters with a closed form

    def frame(self, targets: Tensor) -> Frame | None:
        """Where outputs begin and in which unit they are learnt; None (here) to take them as they are.

        Args:
            targets: (rows, ...), all of them.
        """
        return None

    def explains(self, outputs: Tensor, targets: Tensor) -> bool:
        """Whether a network, as it is, says something of the targets already: then it is not started anew.

        Args:
            outputs: (batch, ...), what it returns for some rows.
            targets: (batch, ...), the targets of these rows.
        """
        return True

    def start_(self, outputs: Tensor, targets: Tensor, all_targets: Tensor) -> None:
        """Put parameters that ``follow_`` moves where they are best, before training.

        Args:
            outputs: (batch, ...), what the network returns for some rows.
            targets: (batch, ...), the targets of these rows.
            all_targets: (rows, ...), those of the whole training set.
        """

    def followed(self) -> tuple[nn.Parameter, ...]:
        """The parameters that ``follow_`` moves, and no optimiser: here none."""
        return ()

    def follow_(self, targets: Tensor, window: int) -> None:
        """Move parameters that have a closed form, after the backward pass of a batch.

        Args:
            targets: (batch, ...), of that batch.
            window: steps over which what is seen of them is averaged.
        """

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

    def check_held(self, outputs: Tensor, targets: Tensor) -> None:
        """Look whether it holds every parameter that its nats depend on, once, before training.

        Args:
            outputs: (batch, ...), what the network returns for some rows.
            targets: (batch, ...), the targets of these rows.

        Raises:
            LikelihoodError: there is a trainable tensor that nobody holds, and so nobody would move.
        """
        with torch.enable_grad():
            unknown = strangers(self.nll(outputs.detach(), targets).sum(), self.parameters())
        if unknown:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in unknown)
            raise LikelihoodError(
                f"{type(self).__name__}: its nats depend on trainable tensors that it does not hold (shapes "
                f"{shapes}), which would get gradients and never a step: make each an attribute, self.scale "
                "= nn.Parameter(...); or, where it is a constant, detach() it."
            )

    def problems(self, outputs: Tensor, targets: Tensor) -> list[str]:
        """Every reason why these outputs and targets do not fit; empty if they do."""
        return []
