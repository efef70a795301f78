"""What all methods of a table share: rows and a program, and what a training leaves as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Protocol

import torch

from bayesprune.baseline import Plan
from bayesprune.data import Split
from bayesprune.gated import GatedModel
from bayesprune.likelihoods import Likelihood
from bayesprune.svi import FitResult, Recipe, evaluate


@dataclass(frozen=True)
class Setup:
    """Rows, and the program whose network learns them.

    Attributes:
        program: a model file, executed: ``model(train, classes, price)``, ``prices(rows)``, ``RECIPE``.
        train: rows to learn from.
        test: rows that every epoch is scored on; they steer nothing.
        classes: of the targets.
        epochs: passes over the training rows.
        batch_size: rows of a step.
        recipe: the program's, as far as it is followed.
        held_out: further rows to score a finished training on, where settings are compared by them.
    """

    program: ModuleType
    train: Split = field(repr=False)
    test: Split = field(repr=False)
    classes: int
    epochs: int
    batch_size: int
    recipe: Recipe = field(default_factory=Recipe)
    held_out: Split | None = field(default=None, repr=False)

    def plan(self, seed: int, rate: float = 1.0) -> Plan:
        """Of a network without gates.

        Args:
            seed: of the order of rows.
            rate: factor on the program's learning rates.
        """
        recipe = self.recipe
        given = {name: getattr(recipe, name) for name in ("learning_rate", "compact_learning_rate")}
        recipe = replace(recipe, **{n: rate * value for n, value in given.items() if value is not None})
        rows, test = (self.train.x, self.train.y), (self.test.x, self.test.y)
        return Plan(rows, self.epochs, self.batch_size, seed, recipe, validation=test)

    def gated(self, seed: int, scale: float = 1.0, **settings: Any) -> GatedModel:
        """The program's model.

        Args:
            seed: of its first weights.
            scale: factor on the program's prices.
            settings: of the program's ``model``.
        """
        price = None
        if scale != 1.0:
            table = self.program.prices(len(self.train))
            price = {group: scale * nats for group, nats in table.items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: GatedModel = self.program.model(self.train, self.classes, price, **settings)
        return model

    def held_out_error(
        self, network: FitResult | torch.nn.Module, likelihood: Likelihood | None = None
    ) -> float | None:
        """Percent, of the rows that are held out; None where none are.

        Args:
            network: what was learnt.
            likelihood: as ``evaluate`` takes it.
        """
        if self.held_out is None:
            return None
        return evaluate(network, (self.held_out.x, self.held_out.y), likelihood).score


@dataclass(frozen=True)
class Learnt:
    """What a training led to, as plain values.

    Attributes:
        kept: group → numbers of the units that are left; empty for a network whose groups have no numbers.
        parameters: that are left.
        macs: of one row.
        dense_parameters: of the whole network.
        dense_macs: of one row of it.
        error: test error at the last epoch, percent.
        errors: after each epoch, where it was scored.
        nll: of a test row at the end, nats.
        training_macs: multiply-accumulates of all steps, a step as three forward passes of its rows.
        seconds: of learning, by the clock.
        processor_seconds: of learning, of all threads.
        undecided: gates with 0.01 < q(z = 1) < 0.99 at the end; None where there are no gates.
        held_out_error: percent, at the end, of rows that are neither learnt from nor tested on; None without.
        sections: residual sections that are left, and that there were; None where they have no gates.
    """

    kept: dict[str, list[int]]
    parameters: int
    macs: int
    dense_parameters: int
    dense_macs: int
    error: float
    errors: list[float]
    nll: float
    training_macs: float
    seconds: float
    processor_seconds: float
    undecided: int | None = None
    held_out_error: float | None = None
    sections: list[int] | None = None

    @property
    def best(self) -> float | None:
        """The lowest error of all epochs, as much of the field reports it; None where none was scored."""
        return min(self.errors) if self.errors else None


class Method(Protocol):
    """One line of a table.

    Attributes:
        name: for the table.
        settings: what is chosen from, by error on held-out rows.
        setting: what a setting is.
        beside: the method whose training of the same seed it is fitted to; None for none.
        needs: a package that it cannot do without, as it is installed; None for none.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def settings(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def setting(self) -> str: ...  # noqa: D102
    @property
    def beside(self) -> str | None: ...  # noqa: D102
    @property
    def needs(self) -> str | None: ...  # noqa: D102

    def learn(self, setup: Setup, value: float, seed: int, other: Learnt | None) -> Learnt:
        """One training.

        Args:
            setup: rows and program.
            value: of the setting.
            seed: of first weights, order of rows, and noise.
            other: training of ``beside``.
        """
