"""What others may do while a training goes on: look, log, and end it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from bayesprune.errors import SettingsError
from bayesprune.svi.result import Epoch
from bayesprune.svi.step import Info

if TYPE_CHECKING:
    from bayesprune.svi.training import Training


class Callback:
    """Called as a training goes on; override what is of use.

    All see the training: ``training.gated`` (the model), ``training.steps``, ``training.decided``,
    ``training.optimizer``, ``training.history``. ``training.stop()`` ends it after the step: what is not
    decided is decided then. One that keeps something for a resumed training has ``state_dict`` and
    ``load_state_dict``, of tensors by name.

    Example:
        Three lines for TensorBoard, W&B or MLflow:

        >>> class Log(Callback):
        ...     def on_epoch(self, training, epoch):
        ...         print(f"{epoch.epoch} nll {epoch.nll:.2f}, {epoch.macs_percent:.0f} % of the MACs")
    """

    def on_start(self, training: Training) -> None:
        """Before the first step, or the first after a resumption."""

    def on_step(self, training: Training, info: Info) -> None:
        """After every step; ``info.nll`` lies on the device, and looking at it waits for the step."""

    def on_removal(self, training: Training, removed: dict[str, int]) -> None:
        """After units were removed: group → how many. Parameters are smaller, and are the same objects."""

    def on_decision(self, training: Training) -> None:
        """After every gate was put at a vertex: nothing is removed from now on."""

    def on_epoch(self, training: Training, epoch: Epoch) -> None:
        """After every epoch's record."""

    def on_end(self, training: Training) -> None:
        """After the last step, with all gates decided and averaged weights in place."""

    def state_dict(self) -> dict[str, Tensor]:
        """What is to be kept for a resumed training."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up what was kept."""


class EarlyStopping(Callback):
    """End a training whose score on validation rows does not improve, with the best network that was seen.

    Only networks whose gates are decided are compared: none before is of its final size, or within budget.

    Args:
        patience: epochs without improvement after which the training ends.
        least: by how much the score must fall to count as an improvement.

    Raises:
        SettingsError: a setting out of range.
    """

    def __init__(self, patience: int = 5, least: float = 0.0) -> None:
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise SettingsError(f"EarlyStopping(patience={patience!r}) must be a whole number, at least 1.")
        if not (isinstance(least, int | float) and math.isfinite(least) and least >= 0):
            raise SettingsError(f"EarlyStopping(least={least!r}) must be a number, at least 0.")
        self.patience, self.least = patience, least
        self.best, self.waited = math.inf, 0
        self._weights: dict[str, Tensor] = {}

    def on_start(self, training: Training) -> None:
        """See ``Callback``."""
        if training.recipe.averaging:
            raise SettingsError(
                "EarlyStopping gives back the best epoch's weights, and Recipe(averaging="
                f"{training.recipe.averaging:g}) the average over many: choose one, Recipe(averaging=0)."
            )
        if not training.recipe.decides:
            raise SettingsError(
                "EarlyStopping compares networks whose gates are decided, and Recipe(decides=False) leaves "
                "them undecided: leave one of them out."
            )

    def on_epoch(self, training: Training, epoch: Epoch) -> None:
        """See ``Callback``."""
        if epoch.validation is None:
            raise SettingsError(
                "EarlyStopping needs rows to score on: bp.fit(…, validation=(inputs, targets))."
            )
        if not training.decided:
            return
        if epoch.validation < self.best - self.least or not self._weights:
            self.best, self.waited = epoch.validation, 0
            self._weights = {k: v.detach().clone() for k, v in training.gated.state_dict().items()}
            return
        self.waited += 1
        if self.waited >= self.patience:
            training.stop()

    def on_end(self, training: Training) -> None:
        """See ``Callback``."""
        if self._weights:
            training.gated.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Tensor]:
        """See ``Callback``."""
        counts = Tensor([self.best, self.waited])
        return {"counts": counts.double(), **{f"best/{k}": v for k, v in self._weights.items()}}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See ``Callback``."""
        self.best, self.waited = float(state["counts"][0]), int(state["counts"][1])
        self._weights = {k.removeprefix("best/"): v for k, v in state.items() if k != "counts"}
