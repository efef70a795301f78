"""Trainings that take turns an epoch at a time: ours, its dense twin, and a magnitude pruner as the peer."""

import copy
import math
import time
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
import torch_pruning
from torch import nn

import bayesprune as bp
from bayesprune.programs import ModelProgram
from bayesprune.svi.batches import Batches
from bayesprune.svi.subnormals import subnormals_as_zero

CPU = torch.device("cpu")


@dataclass
class Outcome:
    """What a training led to: test error and sizes in percent, wall time of the training alone."""

    error: float
    parameters: float
    macs: float
    seconds: float
    kept: dict[str, int] = field(default_factory=dict)
    undecided: int = 0
    rounded: int = 0
    decided_at: int | None = None
    nll: float = float("nan")


class Ours:
    """A shipped program, as ``bayesprune.fit`` runs it.

    Args:
        program: gives batch size and recipe.
        gated: its model; copied.
        train: inputs and targets.
        epochs: in all.
        seed: of gates' noise and row order.
        data: name of the data, by which the program tells its batch size.
        changes: settings that differ from the program's recipe.
    """

    def __init__(
        self, program: ModelProgram, gated: bp.GatedModel, train, epochs: int, seed: int,
        data: str = "mnist", **changes: float,
    ) -> None:  # fmt: skip
        self.batches = Batches(train, program.batch_size_on(data), CPU, seed)
        recipe = replace(program.recipe, **changes)
        steps = epochs * self.batches.steps
        self.run = bp.Training(copy.deepcopy(gated), steps=steps, recipe=recipe, seed=seed, rows=self.batches)
        self.run.within_fit_()
        self.seconds = 0.0  # the run's own count on while others have their turn

    def epoch(self) -> None:
        started = time.perf_counter()
        self.run.gated.train()
        with subnormals_as_zero():  # as fit does
            for batch in self.batches.epoch(len(self.run.history)):
                self.run.step_on_([batch])
        self.run.end_epoch()
        self.seconds += time.perf_counter() - started

    def outcome(self, test) -> Outcome:
        self.run.result()
        gated = self.run.gated.eval()
        return Outcome(
            error=(quality := bp.evaluate(gated, test)).score,
            nll=quality.nll,
            parameters=100 * gated.network.parameter_count() / gated.dense_parameters,
            macs=100 * gated.network.macs() / gated.dense_macs,
            seconds=self.seconds,
            kept=gated.kept(),
            undecided=self.run.undecided(),
            rounded=self.run.rounded,
            decided_at=None if self.run.decided_at is None else self.run.decided_at // self.batches.steps + 1,
        )


class Plain:
    """A plain network under fused Adam, one cosine from a peak to zero, with our program's weight penalty.

    Args:
        network: trained in place.
        train: inputs and targets.
        batch_size: rows of a step.
        epochs: in all.
        peak: the learning rate to begin with.
        penalty: L2, Adam's ``weight_decay``.
        seed: of the rows' order.
    """

    def __init__(
        self, network, train, batch_size: int, epochs: int, peak: float, penalty: float, seed: int
    ) -> None:
        self.network, self.peak, self.seconds, self.done = network.train(), peak, 0.0, 0
        self.batches = Batches(train, batch_size, CPU, seed)
        self.steps, self.step = epochs * self.batches.steps, 0
        self.optimiser = torch.optim.Adam(network.parameters(), lr=peak, weight_decay=penalty, fused=True)

    def epoch(self) -> None:
        started = time.perf_counter()
        self.network.train()
        with subnormals_as_zero():  # a dense network has more of them than ours: it is not to lose by them
            for x, y in self.batches.epoch(self.done):
                self._step(x, y)
        self.done += 1
        self.seconds += time.perf_counter() - started

    def _step(self, x: torch.Tensor, y: torch.Tensor) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.peak * 0.5 * (1 + math.cos(math.pi * self.step / self.steps))
        loss = F.cross_entropy(self.network(x), y)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1

    def outcome(self, test, dense: bp.Cost, seconds: float = 0.0) -> Outcome:
        network = self.network.eval()
        cost = bp.count(network, test[0][:1])
        return Outcome(
            error=(quality := bp.evaluate(network, test, bp.Categorical(rows=1))).score,
            nll=quality.nll,
            parameters=100 * cost.parameters / dense.parameters,
            macs=100 * cost.macs / dense.macs,
            seconds=self.seconds + seconds,
        )


def magnitude_pruned(network: nn.Sequential, example: torch.Tensor, parameters: int) -> nn.Sequential:
    """A copy cut to a number of parameters by Torch-Pruning, the same share of every layer, by L2 norm.

    Fang, Ma, Song, Mi & Wang (2023), DepGraph: Towards Any Structural Pruning. Inputs are not pruned.
    """
    low, high, best = 0.0, 1.0, None
    for _ in range(16):
        ratio = (low + high) / 2
        pruned = copy.deepcopy(network).eval()
        last = [module for module in pruned if isinstance(module, nn.Linear)][-1]
        torch_pruning.pruner.BasePruner(
            pruned,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=ratio,
            ignored_layers=[last],
        ).step()
        if sum(p.numel() for p in pruned.parameters()) <= parameters:
            high, best = ratio, pruned
        else:
            low = ratio
    if best is None:
        raise RuntimeError(f"The peer cannot get down to {parameters} parameters.")
    return best
