"""What a comparison has in common, what it may cost, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from bayesprune.errors import SettingsError
from bayesprune.likelihoods import Likelihood
from bayesprune.svi import Recipe, evaluate
from bayesprune.svi.batches import Train

Cost = Literal["macs", "parameters"]


@dataclass(frozen=True)
class Limit:
    """What a small network may cost.

    Attributes:
        what: ``"macs"``, multiply-accumulates of one row, or ``"parameters"``.
        most: as many at most.
    """

    what: Cost
    most: int

    def __post_init__(self) -> None:
        """Check both."""
        if self.what not in ("macs", "parameters"):
            raise SettingsError(f"Limit(what={self.what!r}) is neither 'macs' nor 'parameters'.")
        if isinstance(self.most, bool) or not isinstance(self.most, int) or self.most < 1:
            raise SettingsError(f"Limit(most={self.most!r}): a whole number, at least 1.")


@dataclass(frozen=True)
class Plan:
    """What all networks of a comparison share; what the fit had.

    Attributes:
        train: rows to learn from, as ``fit`` takes them.
        epochs: passes over them.
        batch_size: rows of a step; None as in ``fit``.
        seed: of the order of rows.
        recipe: the fit's: learning rates, the share at which they begin to fall, averaging.
        device: where it runs.
        validation: rows that every epoch is scored on; they steer nothing.
    """

    train: Train = field(repr=False)
    epochs: int = 30
    batch_size: int | None = None
    seed: int = 0
    recipe: Recipe = field(default_factory=Recipe)
    device: str | torch.device = "cpu"
    validation: Train | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Rival:
    """A network that was learnt for comparison.

    Attributes:
        network: plain PyTorch, on the CPU, in eval mode.
        likelihood: that was learnt with it, to score it by.
        parameters: that it has.
        macs: multiply-accumulates of one row.
        seconds: of learning, by the clock on the wall.
        processor_seconds: of learning, of all threads together; neither with what validation took.
        scores: on the plan's validation rows after each epoch, as the likelihood scores; empty without them.
        epoch_macs: of one row, as the network was in each epoch's last step.
    """

    network: nn.Module = field(repr=False)
    likelihood: Likelihood = field(repr=False)
    parameters: int
    macs: int
    seconds: float
    processor_seconds: float
    scores: tuple[float, ...] = ()
    epoch_macs: tuple[int, ...] = ()

    def figures(self, test: Train) -> dict[str, Any]:
        """Its score on rows that it has not seen, its size and its times, as plain values.

        Args:
            test: rows, as ``evaluate`` takes them.
        """
        quality = evaluate(self.network, test, self.likelihood)
        return {
            f"test_{quality.name}": quality.score,
            "test_nll": quality.nll,
            "parameters": self.parameters,
            "macs": self.macs,
            "seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
        }
