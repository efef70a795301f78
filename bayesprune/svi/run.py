"""A training under way: the loop over steps that removes, decides, averages and keeps the history."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bayesprune.errors import DivergedError
from bayesprune.gated import GatedModel
from bayesprune.rows import Pair
from bayesprune.structure.copying import copy_of
from bayesprune.svi.batches import Batches
from bayesprune.svi.objective import gate_nats, weight_nats
from bayesprune.svi.pricing import Pricing
from bayesprune.svi.progress import Progress
from bayesprune.svi.result import Epoch
from bayesprune.svi.schedule import Schedule
from bayesprune.svi.settings import Recipe
from bayesprune.svi.shrink import dead_units
from bayesprune.svi.step import Engine, Info, State, adam

CERTAIN = 30.0  # log-odds whose sigmoid is 1 in float32


class Run:
    """The mutable middle of ``fit``: one model, one engine, one state.

    Args:
        gated: the model, moved in place.
        batches: of the training rows.
        recipe: the settings.
        epochs: in all.
        seed: of gates' noise and row order.
    """

    def __init__(self, gated: GatedModel, batches: Batches, recipe: Recipe, epochs: int, seed: int) -> None:
        self.gated, self.batches, self.recipe = gated, batches, recipe
        self._epochs, self._seed = epochs, seed
        self.schedule = Schedule(recipe, epochs * batches.steps)
        self.engine = Engine(gated, recipe, seed, self.schedule)
        self.state: State = self.engine.init()
        self.pricing = Pricing.of(gated, self.schedule)
        self.history: list[Epoch] = []
        self.decided_at: int | None = None
        self.rounded = 0
        self.seconds = 0.0
        self.average: dict[str, Tensor] = {}
        self.averaged = 0

    def afresh(self) -> Run:
        """The same training before its first step, on a copy of the model as it is now."""
        return Run(copy_of(self.gated), self.batches, self.recipe, self._epochs, self._seed)

    def become_(self, other: Run) -> None:
        """Take over all that another training of the same kind is."""
        vars(self).update(vars(other))

    def epoch_(self, progress: Progress) -> None:
        """One pass over the data, and its record.

        Raises:
            DivergedError: the loss is not finite any more.
        """
        started = time.perf_counter()
        self.gated.train()
        total, rows = torch.zeros((), device=self.state.velocity.device), 0
        for batch in self.batches.epoch(len(self.history)):
            info = self.step_(batch)
            total, rows = total + info.nll * len(batch[0]), rows + len(batch[0])
            progress.advance()
            if self.state.step % self.schedule.look_every == 0:
                self._check(info.nll)
                self.shrink_()
                progress.tell(self.gated, self.history[-1].elbo if self.history else None)
        self._check(total)
        self.seconds += time.perf_counter() - started
        self.history.append(self._record(float(total) / rows, time.perf_counter() - started))
        progress.tell(self.gated, self.history[-1].elbo)

    def step_(self, batch: Pair) -> Info:
        """One step under the schedule."""
        step = self.state.step
        if self.pricing:
            self.pricing.begin_(batch[0])
        if not self.state.decided and step >= self.schedule.decide:
            self.decide_()
        rate = self.schedule.learning_rate(step, self.decided_at)
        for group in self.engine.optimiser.param_groups:
            group["lr"] = rate
        moving, weight = step >= self.schedule.warmup, self.schedule.prior_weight(step)
        if self.pricing and moving and not self.state.decided:
            if step % self.engine.gates.every == 0:
                self.pricing.before_gate_step_(weight, self.state.velocity)
            weight = self.pricing.prior_weight(weight)
        self.state = replace(self.state, prior_weight=weight, moving=moving)
        self.state, info = self.engine.step(self.state, batch)
        if self.schedule.averages(step, self.decided_at):
            self._average_()
        return info

    def shrink_(self) -> None:
        """Remove what has died, and decide early when no gate is left undecided."""
        if self.state.decided or not self.state.moving:
            return
        dead = dead_units(self.gated, self.recipe.shrink, self.state.velocity)
        self._remove_(self.pricing.spare(dead, self.state.velocity) if self.pricing else dead)
        done = self.state.prior_weight == 1.0 and self.undecided() == 0
        if done and (self.pricing is None or self.pricing.reached()):
            self.decide_()

    def decide_(self) -> None:
        """Put every gate at the nearer vertex, where a multilinear objective has its minima; or at the vertex
        that a budget leaves.
        """
        velocity, probs = self.state.velocity, self.gated.inclusion_prob().detach()
        if self.pricing and self.pricing.has_budget:
            dead = self.pricing.surplus(velocity)
            sure = torch.where(dead, probs <= 0.01, probs >= 0.99)
            self.rounded = int((self.gated.alive & ~sure).sum())
        else:
            dead = dead_units(self.gated, self.recipe.shrink, velocity, below=0.5)
            self.rounded = self.undecided()
        self._remove_(dead)
        self.gated.log_odds.data[self.gated.alive] = CERTAIN
        self.decided_at = self.state.step
        self.state = replace(self.state, decided=True, velocity=torch.zeros_like(self.state.velocity))
        self.enter_compact_()

    def enter_compact_(self) -> None:
        """Switch on what stands in for the gates' noise from now on."""
        recipe, gated = self.recipe, self.gated
        if recipe.compact_scale != 1.0:
            gated.weights = gated.weights.scaled(recipe.compact_scale)
        if recipe.compact_weights == "normal" and not gated.log_scales:
            gated.spread_weights_(gated.weights.initial_scale)
        moments = self.engine.optimiser.state
        self.engine.optimiser = adam(gated, self.schedule.rate)
        self.engine.optimiser.state.update({p: s for p, s in moments.items() if s})
        self.engine.forget()

    def finish_(self) -> None:
        """Decide what is not, and put averaged weights in place."""
        if not self.state.decided:
            self.decide_()
        parameters = dict(self.gated.network.named_parameters())
        for name, value in self.average.items():
            parameters[name].data.copy_(value)
        if self.average:
            self._renormalise_()

    def undecided(self) -> int:
        """Living gates with 0.01 < q(z = 1) < 0.99."""
        probs = self.gated.inclusion_prob().detach()
        return int(((probs > 0.01) & (probs < 0.99)).sum())

    def _remove_(self, dead: Tensor) -> None:
        if bool(dead.any()):
            self.gated.remove_(dead, self.engine.optimiser)
            self.engine.forget()

    def _average_(self) -> None:
        self.averaged += 1
        for name, parameter in self.gated.network.named_parameters():
            if name not in self.average:
                self.average[name] = parameter.detach().clone()
            else:
                self.average[name].lerp_(parameter.detach(), 1 / self.averaged)

    def _renormalise_(self) -> None:
        """Means and variances of batch normalisation under the averaged weights, over one epoch's batches."""
        self.gated.network.eval().renormalise_(x for x, _ in self.batches.epoch(0))

    def _check(self, value: Tensor) -> None:
        if not bool(torch.isfinite(value)):
            raise DivergedError(
                f"The loss became {float(value)} by step {self.state.step} (epoch {len(self.history) + 1}). "
                f"Lower learning_rate (now {self.schedule.rate:g}) or gates.learning_rate "
                f"({self.engine.gates.learning_rate:g}), and look at the inputs' scale; finished epochs' "
                "checkpoints are kept."
            )

    def _record(self, nll: float, seconds: float) -> Epoch:
        gated, probs = self.gated, self.gated.inclusion_prob().detach()
        with torch.no_grad():
            nats = float(gate_nats(gated, probs) + weight_nats(gated, probs))
        return Epoch(
            epoch=len(self.history) + 1,
            elbo=-(gated.likelihood.rows * nll + nats),
            nll=nll,
            prior_weight=self.state.prior_weight,
            seconds=seconds,
            **self.standing(),
        )

    def standing(self) -> dict[str, Any]:
        """What an epoch's record says of the gates and of the network's size, now."""
        gated = self.gated
        return {
            "kept": gated.kept(),
            "parameters_percent": 100 * gated.network.parameter_count() / gated.dense_parameters,
            "macs_percent": 100 * gated.network.macs() / gated.dense_macs,
            "undecided": self.undecided(),
            "inclusion": gated.inclusion_prob().detach().cpu().clone(),
        }
