"""A scheduler of the user's for the learning rate of the user's optimiser, stepped by ``fit``."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from bayesprune.errors import CheckpointError, SettingsError
from bayesprune.svi.result import Epoch


class Scheduler:
    """A scheduler of PyTorch's, and when it steps.

    Args:
        scheduler: of the training's optimiser.
        every: ``"step"`` or ``"epoch"``.
    """

    def __init__(self, scheduler: LRScheduler, every: str) -> None:
        self.scheduler, self.every = scheduler, every

    @classmethod
    def of(cls, maker: Any, optimizer: torch.optim.Optimizer, every: str) -> Scheduler | None:
        """Made for an optimiser; None where none was asked for.

        Args:
            maker: a function of the optimiser.
            optimizer: of the training.
            every: ``"step"`` or ``"epoch"``.

        Raises:
            SettingsError: what was made is none, or one that wants a score with every step.
        """
        if maker is None:
            return None
        made = maker(optimizer)
        if not isinstance(made, LRScheduler):
            raise SettingsError(
                f"scheduler= made a {type(made).__name__}, which is no scheduler of PyTorch: return one."
            )
        if isinstance(made, ReduceLROnPlateau) and every == "step":
            raise SettingsError(
                "ReduceLROnPlateau waits for a score, which there is after an epoch: scheduler_every='epoch'."
            )
        return cls(made, every)

    def after_step(self) -> None:
        """Step, if it does so by step."""
        if self.every == "step":
            self.scheduler.step()

    def after_epoch(self, record: Epoch) -> None:
        """Step, if it does so by epoch; one that waits for a score is told validation's, or −ELBO."""
        if self.every != "epoch":
            return
        if isinstance(self.scheduler, ReduceLROnPlateau):
            score = record.validation if record.validation is not None else -record.elbo
            self.scheduler.step(score)
        else:
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Its state, of plain values.

        Raises:
            CheckpointError: it keeps something else.
        """
        state = {k: v for k, v in self.scheduler.state_dict().items() if not callable(v)}
        try:
            return dict(json.loads(json.dumps(state)))
        except TypeError as problem:
            raise CheckpointError(
                f"{type(self.scheduler).__name__} keeps what no checkpoint can hold ({problem}): train "
                "without checkpoint=, or with a scheduler of plain numbers."
            ) from problem

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what was kept."""
        self.scheduler.load_state_dict(state)
