"""Torch-Pruning as a method of a table: group magnitude, step by step, and fine-tuning, on plain PyTorch."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bayesprune.errors import DivergedError, SettingsError
from bayesprune.gated import GatedModel
from bayesprune.reproduce.methods import FORWARD_AND_BACK
from bayesprune.reproduce.setup import Learnt, Setup
from bayesprune.structure import count
from bayesprune.structure.copying import copy_of
from bayesprune.svi import evaluate
from bayesprune.svi.batches import Batches
from bayesprune.svi.schedule import Schedule
from bayesprune.svi.subnormals import subnormals_as_zero
from bayesprune.svi.threads import threads_for, using_threads

CUTS = 10
STRIDES = 400
"""Of the way from a whole layer to one unit: so finely a cut can be told when to stop."""


@dataclass(frozen=True)
class TorchPruned:
    """The dense network for half of the steps, cut on the way by Torch-Pruning, and the rest of the steps.

    Units that depend on each other go together, the least by the L2 norm of all their weights first, of each
    layer the same share; classes stay, and inputs, which it does not cut. What a network may cost falls by
    one factor in each of ten cuts, evenly over the first half, and what is left learns on. Rows, their order,
    learning rates, decay and averages are those of ``baseline.magnitude``, and Adam goes on with its moments
    of what is left: begun afresh ten times, it learnt less.

    After Fang, Ma, Song, Mi & Wang (2023), "DepGraph: Towards Any Structural Pruning" (arXiv 2301.12900).

    Attributes:
        beside: the method that it has no more parameters than.
    """

    name: str
    beside: str | None
    settings: tuple[float, ...] = (1.0, 0.5, 0.25)
    setting: str = "learning rate ×"
    needs: str | None = "torch-pruning"

    def learn(self, setup: Setup, value: float, seed: int, other: Learnt | None) -> Learnt:
        """See ``Method``.

        Raises:
            SettingsError: nothing to be as small as, or it cannot be cut to that.
            DivergedError: the loss is not finite at the end.
        """
        if other is None:
            raise SettingsError(f"{self.name} is fitted to {self.beside}, of which there is no training.")
        gated = setup.gated(seed)
        loop = _Loop(setup, gated, value, seed, other.parameters)
        with torch.random.fork_rng(devices=[]), subnormals_as_zero():
            torch.manual_seed(seed)
            with using_threads(threads_for(gated.dense_macs, setup.batch_size)):
                loop.run_()
        test = (setup.test.x, setup.test.y)
        quality = evaluate(loop.network, test, gated.likelihood)
        cost = count(loop.network, loop.example)
        return Learnt(
            kept={},
            parameters=cost.parameters,
            macs=cost.macs,
            dense_parameters=gated.dense_parameters,
            dense_macs=gated.dense_macs,
            error=quality.score,
            errors=loop.errors,
            nll=quality.nll,
            training_macs=FORWARD_AND_BACK * float(sum(loop.epoch_macs)) * len(setup.train),
            seconds=loop.seconds,
            processor_seconds=loop.processor_seconds,
            held_out_error=setup.held_out_error(loop.network, gated.likelihood),
        )


class _Loop:
    """A plain loop with cuts.

    Args:
        setup: rows and program.
        gated: the program's model; its network is copied.
        rate: factor on learning rates.
        seed: of the order of rows.
        most: parameters that are left at the end of the cuts.
    """

    def __init__(self, setup: Setup, gated: GatedModel, rate: float, seed: int, most: int) -> None:
        self.setup, self.plan, self.most = setup, setup.plan(seed, rate), most
        self.network: nn.Module = copy_of(gated.network.network)
        self.example, self.likelihood = setup.train.x[:1], gated.likelihood
        rows = len(setup.train)
        self.decay = {name: 1 / (rows * gated.weights.scale_of(name) ** 2) for name in gated.weight_tensors()}
        self.batches = Batches(self.plan.train, setup.batch_size, torch.device("cpu"), seed)
        self.schedule = Schedule(self.plan.recipe, self.batches.steps * setup.epochs)
        self.half = self.schedule.steps // 2
        self.peer: Any = importlib.import_module("torch_pruning")
        self.pruner = self._pruner()
        self.moments = {name: copy_of(self.network) for name in ("exp_avg", "exp_avg_sq")}
        self.graphs = [
            self.peer.DependencyGraph().build_dependency(twin, self.example) for twin in self.moments.values()
        ]
        whole = gated.dense_parameters
        self.limits = {
            self.half * number // CUTS: max(most, round(whole * (most / whole) ** (number / CUTS)))
            for number in range(1, CUTS + 1)
        }
        self.errors: list[float] = []
        self.epoch_macs: list[int] = []
        self.average: dict[str, Tensor] = {}
        self.averaged, self.seconds, self.processor_seconds = 0, 0.0, 0.0

    def run_(self) -> None:
        """All epochs."""
        optimiser, step, loss = self._optimiser(), 0, torch.zeros(())
        for epoch in range(self.setup.epochs):
            began = time.perf_counter(), time.process_time()
            self.network.train()
            for x, y in self.batches.epoch(epoch):
                if step in self.limits:
                    optimiser = self._cut(self.limits[step], optimiser)
                turned = self.half if step >= self.half else None
                for group in optimiser.param_groups:
                    group["lr"] = self.schedule.learning_rate(step, turned)
                loss = self.likelihood.nll(self.network(x), y).mean()
                loss.backward()
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                if self.schedule.averages(step, turned):
                    self._average_()
                step += 1
            if epoch + 1 == self.setup.epochs:
                self._finish_()
            self.seconds += time.perf_counter() - began[0]
            self.processor_seconds += time.process_time() - began[1]
            self._score_()
        if not bool(torch.isfinite(loss)):
            raise DivergedError(f"The loss became {float(loss)} by step {step}. Lower learning_rate.")

    def _pruner(self) -> Any:
        """Of each layer a share that grows alike, from none to all units but one."""
        wide = [m for m in self.network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        return self.peer.pruner.BasePruner(
            self.network,
            self.example,
            importance=self.peer.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio_dict={module: 1 - 1.001 / len(module.weight) for module in wide[:-1]},
            pruning_ratio=0.0,
            iterative_steps=STRIDES,
            ignored_layers=[wide[-1]],
        )

    def _cut(self, most: int, optimiser: torch.optim.Adam) -> torch.optim.Adam:
        """Cut to so many parameters; the optimiser of what is left, with the moments of what is left."""
        if self._size() <= most:
            return optimiser
        begun = bool(optimiser.state)
        for moment, twin in self.moments.items():
            for own, mine in zip(twin.parameters(), self.network.parameters(), strict=True):
                own.data = optimiser.state[mine][moment].clone() if begun else own.data
        while self._size() > most:
            if self.pruner.current_step >= STRIDES:
                raise SettingsError(
                    f"Torch-Pruning cannot cut this network to {self.most:,} parameters: it leaves one unit "
                    "in each layer, and all inputs. Compare with a pruned network that is larger."
                )
            for group in self.pruner.step(interactive=True):
                self._cut_alike_(group)
                group.prune()
        new = self._optimiser()
        if not begun:
            return new
        steps = next(iter(optimiser.state.values()))["step"]
        for name, mine in self.network.named_parameters():
            moments = {moment: twin.get_parameter(name).detach() for moment, twin in self.moments.items()}
            new.state[mine] = {"step": steps.clone(), **moments}
        return new

    def _cut_alike_(self, group: Any) -> None:
        """Cut what is to be cut of the network out of its moments too."""
        dependency, numbers = group[0]
        name = next(n for n, module in self.network.named_modules() if module is dependency.target.module)
        for twin, graph in zip(self.moments.values(), self.graphs, strict=True):
            graph.get_pruning_group(twin.get_submodule(name), dependency.handler, numbers).prune()

    def _size(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    def _optimiser(self) -> torch.optim.Adam:
        """Fused Adam, whose decay is the weights' Gaussian prior."""
        groups = [
            {"params": [parameter], "weight_decay": self.decay.get(name, 0.0)}
            for name, parameter in self.network.named_parameters()
        ]
        return torch.optim.Adam(groups, lr=self.schedule.rate, fused=True)

    def _average_(self) -> None:
        self.averaged += 1
        for name, parameter in self.network.named_parameters():
            if name not in self.average:
                self.average[name] = parameter.detach().clone()
            else:
                self.average[name].lerp_(parameter.detach(), 1 / self.averaged)

    def _finish_(self) -> None:
        """Put averaged weights in place, and take the statistics of batch normalisation afresh."""
        if not self.average:
            return
        for name, parameter in self.network.named_parameters():
            parameter.data.copy_(self.average[name])
        torch.optim.swa_utils.update_bn((x for x, _ in self.batches.epoch(0)), self.network)

    def _score_(self) -> None:
        self.epoch_macs.append(count(self.network, self.example).macs)
        test = (self.setup.test.x, self.setup.test.y)
        self.errors.append(evaluate(self.network.eval(), test, self.likelihood).score)
