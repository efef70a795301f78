"""A plain loop: an optimiser's steps on a model whose gates nobody asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from bayesprune.baseline.plan import Plan, Rival
from bayesprune.baseline.widths import cut_
from bayesprune.errors import DivergedError
from bayesprune.gated import GatedModel
from bayesprune.rows import rows_from
from bayesprune.selection.masks import Masks
from bayesprune.svi.batches import Batches
from bayesprune.svi.checks import check_rows, device_of
from bayesprune.svi.evaluate import quality
from bayesprune.svi.optimisers import adam
from bayesprune.svi.own_unit import start_in_own_unit_
from bayesprune.svi.schedule import Schedule
from bayesprune.svi.subnormals import subnormals_as_zero
from bayesprune.svi.threads import threads_for, using_threads

Cut = Callable[[], Masks]
"""What stays, asked when it is time to cut."""


def learnt(model: GatedModel, plan: Plan, cuts: Sequence[Cut] = ()) -> Rival:
    """Learn a model's weights by a plain loop.

    Args:
        model: is moved in place; its gates are open.
        plan: of the fit.
        cuts: evenly over the first half of the steps, the last one at its end.
    """
    where = device_of(plan.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)  # of dropout and its like, as in fit
        model.to(where)
        batches = Batches(plan.train, plan.batch_size, where, plan.seed, form=model.form)
        check_rows(model, batches)
        batches.teach_(model.likelihood)
        start_in_own_unit_(model, batches)
        threads = threads_for(model.dense_macs, batches.batch_size)
        with using_threads(threads) if where.type == "cpu" else nullcontext(), subnormals_as_zero():
            loop = Loop(model, batches, plan, cuts)
            began = time.perf_counter(), time.process_time()
            loop.run_()
            seconds = time.perf_counter() - began[0] - loop.scoring[0]
            processor = time.process_time() - began[1] - loop.scoring[1]
    model.to("cpu").eval()
    model.likelihood.fitted = True
    network = model.network.plain().eval()
    parameters = sum(p.numel() for p in network.parameters())
    learnt_with = tuple(loop.scores), tuple(loop.epoch_macs)
    return Rival(
        network, model.likelihood, parameters, model.network.macs(), seconds, processor, *learnt_with
    )


def plain_step_(model: GatedModel, optimiser: torch.optim.Optimizer, x: Any, y: Tensor) -> Tensor:
    """One step of a model's network, whose gates nobody asks.

    Args:
        model: moved in place.
        optimiser: of its weights.
        x: (rows, ...), inputs.
        y: (rows, ...), targets.

    Returns:
        (), mean negative log-likelihood of a row before the step, nats.
    """
    likelihood = model.likelihood
    y = likelihood.taught(x, y)
    loss = likelihood.nll(model.network(x), y).mean()
    loss.backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    likelihood.follow_(y, min(max(round(likelihood.rows / len(y)), 10), 100))
    return loss.detach()


class Loop:
    """Passes over the rows, with nothing but an optimiser's steps.

    Args:
        model: its network is learnt.
        batches: of the rows.
        plan: of the fit.
        cuts: as for ``learnt``.
    """

    def __init__(self, model: GatedModel, batches: Batches, plan: Plan, cuts: Sequence[Cut] = ()) -> None:
        self.model, self.batches, self.plan = model, batches, plan
        self.steps = batches.steps * plan.epochs
        self.schedule = Schedule(plan.recipe, self.steps)
        half = self.steps // 2
        self.cuts = {half * number // len(cuts): cut for number, cut in enumerate(cuts, start=1)}
        self.turn = half if cuts else self.schedule.decide  # from here on the rate falls
        found = plan.validation
        self.held_out = None if found is None else rows_from(found, "validation", form=model.form)
        self.scores: list[float] = []
        self.epoch_macs: list[int] = []
        self.scoring = (0.0, 0.0)  # seconds by the clock and of the processor
        self.optimiser = adam(model, self.schedule.rate)
        self.average: dict[str, Tensor] = {}
        self.averaged = 0

    def run_(self) -> None:
        """All steps."""
        self.model.train()
        loss, step = torch.zeros(()), 0
        for epoch in range(self.plan.epochs):
            for x, y in self.batches.epoch(epoch):
                self._turn_(step)
                loss = self._step(step, x, y)
                step += 1
            if epoch + 1 == self.plan.epochs:
                self._finish_()
            self.epoch_macs.append(self.model.network.macs())
            self._score_()
        if not bool(torch.isfinite(loss)):
            raise DivergedError(f"The loss became {float(loss)} by step {self.steps}. Lower learning_rate.")

    def _score_(self) -> None:
        """After an epoch, of the network as it is, on rows that nothing is learnt from."""
        if self.held_out is None:
            return
        began = time.perf_counter(), time.process_time()
        self.scores.append(quality(self.model.network, self.held_out, self.model.likelihood).score)
        clock, processor = time.perf_counter() - began[0], time.process_time() - began[1]
        self.scoring = self.scoring[0] + clock, self.scoring[1] + processor

    def _step(self, step: int, x: Any, y: Tensor) -> Tensor:
        turned = self.turn if step >= self.turn else None
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.learning_rate(step, turned)
        loss = plain_step_(self.model, self.optimiser, x, y)
        if self.schedule.averages(step, turned):
            self._average_()
        return loss

    def _turn_(self, step: int) -> None:
        """Cut, where it is time to, and at the turn take up the prior that weights have from then on."""
        if step in self.cuts:
            cut_(self.model, self.cuts[step](), self.optimiser)
        if step != self.turn:
            return
        scale, moments = self.plan.recipe.compact_scale, self.optimiser.state
        if scale != 1.0:
            self.model.weights = self.model.weights.scaled(scale)
        self.optimiser = adam(self.model, self.schedule.rate)
        self.optimiser.state.update({p: s for p, s in moments.items() if s})

    def _average_(self) -> None:
        self.averaged += 1
        for name, parameter in self.model.network.named_parameters():
            if name not in self.average:
                self.average[name] = parameter.detach().clone()
            else:
                self.average[name].lerp_(parameter.detach(), 1 / self.averaged)

    def _finish_(self) -> None:
        """Put averaged weights in place, and take the statistics of batch normalisation afresh."""
        if not self.average:
            return
        for name, parameter in self.model.network.named_parameters():
            parameter.data.copy_(self.average[name])
        self.model.network.eval().renormalise_(x for x, _ in self.batches.epoch(0))
