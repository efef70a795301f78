"""A training under way: one's own loop, with gates that move, units that go, and budgets that are kept."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bayesprune.callers import level
from bayesprune.errors import CheckpointError, DivergedError, LossScaleWarning, SettingsError
from bayesprune.gated import GatedModel
from bayesprune.gated.dead import dead_units
from bayesprune.gated.precision import refuse_autocast
from bayesprune.rows import Inputs, Pair
from bayesprune.rows.checks import check_whole
from bayesprune.rows.pairs import pair_of
from bayesprune.structure.copying import copy_of
from bayesprune.structure.graph import GraphNetwork
from bayesprune.svi.batches import Batches, Train
from bayesprune.svi.callbacks import Callback
from bayesprune.svi.checks import check_first, check_model, check_rows, check_training
from bayesprune.svi.clock import warn_after, warn_before
from bayesprune.svi.estimators.problem import backward
from bayesprune.svi.few_rows import announcement, first_scale, spreads, spreads_at_once
from bayesprune.svi.moves import Decision, decide_, spared, why_not_moved
from bayesprune.svi.moves_together import decide_together_, spared_together
from bayesprune.svi.moving_rows import rows_for, together
from bayesprune.svi.objective import gate_nats, prior_nats, weight_nats
from bayesprune.svi.optimisers import Optimizer, given
from bayesprune.svi.own_unit import start_in_own_unit_
from bayesprune.svi.pricing import Pricing
from bayesprune.svi.processes import Processes, digest, refuse_late
from bayesprune.svi.result import Epoch, FitResult, prune
from bayesprune.svi.schedule import Schedule
from bayesprune.svi.sections import exact_gains, optional_units, unpaid
from bayesprune.svi.settings import Recipe, describe
from bayesprune.svi.step import Engine, Info, State
from bayesprune.svi.stepping import Stepping
from bayesprune.svi.training_state import TrainingState, put_, settings_of, taken

OPEN = math.log(0.95 / 0.05)  # log-odds at which trained weights' gates start, at least
CERTAIN = 30.0  # log-odds whose sigmoid is 1 in float32


class Passed:
    """What has passed since the last record.

    Args:
        device: of the training.
    """

    def __init__(self, device: torch.device) -> None:
        self.nll, self.rows, self.began = torch.zeros((), device=device), 0, time.perf_counter()

    def add(self, nll: Tensor, rows: int) -> None:
        """Add a step's mean negative log-likelihood of a row, and its rows."""
        self.nll, self.rows = self.nll + nll * rows, self.rows + rows


class Training:
    """What an existing loop needs for its network to be pruned while it learns.

    The loop keeps its loader, its optimiser, its scheduler and what it does to losses and gradients. Gates,
    priors, removals, the decision and budgets are done within ``loss`` and ``step``; there is nothing else to
    call.

    Args:
        gated: from ``bp.gate``; it is changed in place, and ``training.gated`` is the same model.
        steps: how many steps the training is of, by which warm-up, selection and decision are timed.
        optimizer: over ``gated.parameters()``; its class, or a function of parameters that makes it; by
            default fused Adam under the recipe's learning rates. The weights' Gaussian prior is added to
            their gradients, so that it is the same for all: give ``weight_decay=0``. Its learning rate is its
            owner's.
        recipe: warm-up, ramp, decision, gate steps, estimator, averaging; its learning rates are for the
            default optimiser.
        seed: of the gates' noise.
        rows: the training rows, as ``fit`` takes them: needed where a likelihood begins from all targets
            (``Gaussian``), and where weights are averaged beside batch normalisation; else the first batch is
            looked at.
        also: copies of the model that are averaged elsewhere, such as ``AveragedModel(gated)``: what is
            removed from the model is removed from them.
        callbacks: told of every step, removal, decision and record.
        start: ``"trained"`` where the network has learnt already: what the recipe leaves at its default is
            then ``Recipe.trained``'s.
        processes: that train together, a process group; by default all, where ``torch.distributed`` was
            initialised. Each has its own batches, and every one must take all steps.

    Raises:
        SettingsError: a setting out of range, or an optimiser that does not fit the model.
        ProcessError: the processes were not told the same.
        LikelihoodError, DataError: as ``fit``, where ``rows`` are given.

    Warns:
        ClockWarning: so few steps cannot decide any gate by evidence.
        PriorWarning: the optimiser decays weights by itself.

    Example:
        >>> import bayesprune as bp
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(64, 4)
        >>> y = (x[:, 0] > x[:, 1]).long()
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=1.0))
        >>> gated = bp.gate(network, x[:2], prior=prior, likelihood=bp.Categorical(rows=len(x)))
        >>> training = Training(gated, steps=400, optimizer=torch.optim.SGD(gated.parameters(), lr=0.1))
        >>> for _ in range(400):
        ...     loss = training.loss((x, y))
        ...     loss.backward()
        ...     info = training.step()
        >>> small = training.finish()
        >>> training.decided, type(small).__name__
        (True, 'Sequential')
    """

    def __init__(
        self,
        gated: GatedModel,
        *,
        steps: int,
        optimizer: Optimizer | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        rows: Train | Batches | None = None,
        also: Iterable[nn.Module] = (),
        callbacks: Iterable[Callback] = (),
        start: str | None = None,
        processes: Any = None,
    ) -> None:
        check_model(gated)
        check_training(steps=steps, recipe=recipe, seed=seed)
        self.gated, self.recipe, self.seed = gated, (recipe or Recipe()).begun(start), seed
        self.schedule = Schedule(self.recipe, steps)
        self.also = [_copy_within(copy) for copy in also]
        if gated.continuous.priors and not all(isinstance(copy, GatedModel) for copy in self.also):
            raise SettingsError(
                "also= holds a copy of the network alone, and this model's gates are continuous: their means "
                "go into weights at the decision, and a copy needs its own. Average the gated model, "
                "AveragedModel(gated)."
            )
        self.batches: Batches | None = None
        self._check_targets: Callable[[Tensor, str], None] | None = None
        if rows is not None:
            device = gated.log_odds.device
            dealt = rows if isinstance(rows, Batches) else Batches(rows, None, device, seed, form=gated.form)
            self._begin_with_(dealt)
        self.announced = ""
        if spreads_at_once(self.recipe, gated) and not gated.log_scales:
            self._spread_(first_scale(gated, self.schedule))
        own = None if optimizer is None else given(gated, optimizer)
        self.processes = Processes.of(processes, gated.log_odds.device)
        self._by_default = processes is None
        self.engine = Engine(gated, self.recipe, seed, self.schedule, own, self.processes)
        self.state: State = self.engine.init()
        self.pricing = Pricing.of(gated, self.schedule)
        if self.pricing and self.pricing.has_budget and not self.recipe.decides:
            raise SettingsError(
                "Recipe(decides=False) leaves gates undecided, and a budget is met by deciding them: ask for "
                "a price, bp.Price(...), or decide: what was known before is result.posterior('decision')."
            )
        if self.recipe.start == "trained":
            self._open_gates_()
        self.callbacks = tuple(callbacks)
        self.history: list[Epoch] = []
        self.decided_at: int | None = None
        self.at_decision: GatedModel | None = None
        self.decision = Decision()
        self._moved_by: Pair | str | None = None
        self.rounded = 0
        self.seconds = 0.0
        self.average: dict[str, Tensor] = {}
        self.averaged = 0
        self._learnt: list[nn.Parameter] | None = None  # of the network, in the order of their averages
        self.finished = self.stopping = False
        self._records, self._may_run_over = True, False
        self.passed = Passed(self.state.velocity.device)
        self._last: Pair | None = None  # the batch of this step, by which sections are judged
        self._hooks = [
            self.optimizer.register_step_pre_hook(self._prepare),
            self.optimizer.register_step_post_hook(self._conclude),
        ]
        self._ready: tuple[Tensor, Tensor | None] | None = None
        self._join_()
        self._rows_for_moves()  # before a loader deals: one that keeps its workers cannot be asked in a pass
        self._info: Info | None = None
        self._started = False

    @property
    def leads(self) -> bool:
        """Whether this process is the first of the training, which alone writes files."""
        return self.processes is None or self.processes.rank == 0

    # ---- what a loop calls

    @property
    def turned_at(self) -> int | None:
        """The step from which the learning rate falls: of the decision, or where it would have been."""
        if self.recipe.decides:
            return self.decided_at
        return self.schedule.decide if self.state.step > self.schedule.decide else None

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Of the weights."""
        return self.engine.optimiser

    @property
    def steps(self) -> int:
        """Steps taken."""
        return self.state.step

    @property
    def decided(self) -> bool:
        """Whether all gates are at a vertex: nothing is removed any more, and the network is a plain one."""
        return self.state.decided

    def loss(self, batch: Any) -> Tensor:
        """Run a batch forward under gates that are drawn for every row.

        Several batches may come before a step: their gradients add up, as everywhere in PyTorch, so that k
        losses divided by k are one large batch.

        Args:
            batch: (inputs, targets), or a dict of both, as ``fit`` takes them; on any device.

        Returns:
            Scalar, mean negative log-likelihood of a row, nats: scale it, log it, call ``backward``.

        Raises:
            SettingsError: the schedule has no step left, the training is finished, or gradients are off.
            DataError, LikelihoodError: the batch does not fit network or likelihood.
        """
        place = f"batch of step {self.state.step + 1}"
        x, y = pair_of(batch, place, True, self.gated.form)
        assert y is not None
        check_whole(x, y, place)
        device = self.state.velocity.device
        x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
        if self._check_targets is None:
            self._begin_(x, y)
        assert self._check_targets is not None
        self._check_targets(y, place)
        if not self.gated.training:
            self.gated.train()
        return self._loss((x, y))

    def step(self, scaler: torch.amp.GradScaler | None = None) -> Info | None:
        """Move weights by the optimiser and gates by mirror steps; remove what has died; decide in time.

        Args:
            scaler: that has scaled the losses; its ``step`` and ``update`` are called here.

        Returns:
            What was seen; None where the scaler has skipped the step for gradients that are not finite.

        Raises:
            SettingsError: a loss was not taken, or not differentiated; or autocast is still on.
            DivergedError: the loss is not finite any more.
        """
        refuse_autocast("training.step()", self.state.velocity.device.type)
        self._info = None
        self._check_scale(scaler)
        late = self.processes is not None and not self.engine.gathered
        self.reduce()
        if scaler is None:
            self.optimizer.step()
        else:
            self._step_scaled(scaler, late)
        return self._info

    def reduce(self) -> None:
        """Average gradients over processes now, before they are clipped or unscaled; else ``step`` does it.

        One process has nothing to average.

        Raises:
            SettingsError: a loss was not taken, or not differentiated.
            ProcessError: another process is elsewhere, or has ended.
        """
        if self.processes is not None:
            self.engine.gather_(self.state)

    def end_epoch(self) -> Epoch:
        """Record what has happened since the last record; by itself once as many rows have been seen as there
        are.
        """
        passed, self.passed = self.passed, Passed(self.state.velocity.device)
        self._check(passed.nll)
        seconds = time.perf_counter() - passed.began
        self.seconds += seconds
        self.history.append(self._record(float(passed.nll) / max(passed.rows, 1), seconds))
        if self._records:
            for callback in self.callbacks:
                callback.on_epoch(self, self.history[-1])
        return self.history[-1]

    def stop(self) -> None:
        """Say that the training is to end: ``fit`` does after this step, a loop of one's own looks at
        ``stopping``.
        """
        self.stopping = True

    def finish(self) -> nn.Module:
        """End the training: decide what is not decided, put averaged weights in place.

        Returns:
            The small network, a plain module of the user's own class, in eval mode.

        Warns:
            ClockWarning: more than 0.05 of the gates were decided because time was up.
            RoundingWarning: the recipe leaves gates undecided, and a network has to be one.
        """
        return prune(self.result())

    def result(self) -> FitResult:
        """End the training, as ``finish`` does, and return what ``fit`` returns: posterior, history, …"""
        self._finish_()
        decided = self.decided_at
        per_epoch = max(1, round(self.state.step / max(len(self.history), 1)))
        epoch = None if decided is None else min(decided // per_epoch + 1, max(len(self.history), 1))
        history = self.history
        if history:
            history = [*history[:-1], replace(history[-1], **self.standing())]
        found = FitResult(
            self.gated.eval(), tuple(history), self.seconds, self.rounded, epoch,
            at_decision=self.at_decision, left_undecided=not self.recipe.decides, decision=self.decision,
        )  # fmt: skip
        warn_after(found)
        return found

    def state_dict(self) -> TrainingState:
        """All that is needed to go on: model, optimiser, gates, history. What the data's own randomness and a
        scheduler need is their owner's to keep.

        Returns:
            Copies, on the CPU: tensors by name, which safetensors can hold, and plain values, which JSON can.
        """
        return taken(self)

    def load_state_dict(self, state: TrainingState) -> None:
        """Go on where another training of the same model, steps and recipe was, to the bit-equal result.

        Args:
            state: what ``state_dict`` returned.

        Raises:
            CheckpointError: it does not fit; nothing was changed then.
        """
        if self.state.step or self.finished:
            raise SettingsError(
                f"This training has taken {self.state.step} steps: a state is put into one that has taken "
                "none."
            )
        try:
            put_(self, state)
        except (KeyError, ValueError, RuntimeError, TypeError) as problem:
            raise CheckpointError(f"The state does not fit this training ({problem}).") from problem

    # ---- removals and the decision, which steps bring about by themselves

    def shrink(self) -> None:
        """Remove what has died, and decide early when no gate is left undecided."""
        if self.state.decided or not self.state.moving:
            return
        shrink = self.recipe.shrink
        dead = dead_units(self.gated, shrink.below, self.state.velocity, shrink.least)
        rows = self._rows_for_moves()
        if not isinstance(rows, str):
            assert self.recipe.moves is not None
            asked = self.gated, rows, self.recipe.moves, dead
            held = (
                spared(*asked)
                if self.processes is None
                else spared_together(self.processes, self.state.step, *asked)
            )
            dead = dead & ~held
        if self.pricing:
            dead = self.pricing.spare(dead, self.state.velocity)
        self._remove_(dead)
        done = self.recipe.decides and self.state.prior_weight == 1.0 and self.undecided() == 0
        done = done and not self.gated.continuous.live  # their noise stays as long as it may
        if done and (self.pricing is None or self.pricing.reached()):
            self.decide()

    def decide(self) -> None:
        """Put every gate at the nearer vertex, where a multilinear objective has its minima; or at the vertex
        that a budget leaves.
        """
        if self.state.decided:
            return
        self.engine.freeze_(False)
        self.gated.follow_continuous_()
        self._judge_sections_()
        self.at_decision = copy_of(self.gated).eval()
        velocity, probs = self.state.velocity, self.gated.inclusion_prob().detach()
        if self.pricing and self.pricing.has_budget:
            dead = self.pricing.surplus(velocity)
            sure = torch.where(dead, probs <= 0.01, probs >= 0.99)
            self.rounded = int((self.gated.alive & ~sure).sum())
        else:
            dead = dead_units(self.gated, 0.5, least=self.recipe.shrink.least)
            self.rounded = self.undecided()
        self._remove_(self._moved_(dead))
        self.engine.settle_()
        for copy in self.also:
            if isinstance(copy, GatedModel):
                copy.settle_continuous_()
        self.gated.log_odds.data[self.gated.alive] = CERTAIN
        self.gated.pin_()
        for copy in self.also:
            if isinstance(copy, GatedModel):
                copy.log_odds.data.copy_(self.gated.log_odds.data)
        self.decided_at = self.state.step
        self.state = replace(self.state, decided=True, velocity=torch.zeros_like(self.state.velocity))
        self.enter_compact_()
        for callback in self.callbacks:
            callback.on_decision(self)

    def _rows_for_moves(self) -> Pair | str:
        """The rows by which moves of units are judged; or why there are no moves."""
        if self.recipe.moves is None:
            return "the recipe has none"
        if not self.recipe.decides:
            return "gates stay undecided"
        why = why_not_moved(self.gated)
        if not why and self._moved_by is None:
            self._moved_by = rows_for(self.gated, self.batches, self.recipe.moves)
            if self.processes is not None:
                self._moved_by = together(self.processes, self._moved_by)
        return why or self._moved_by or ""

    def _moved_(self, dead: Tensor) -> Tensor:
        """Units to remove, after moves."""
        rows = self._rows_for_moves()
        if isinstance(rows, str):
            self.decision = Decision(why_none=rows)
            return dead
        assert self.recipe.moves is not None
        keep, least = self.gated.alive & ~dead, self.recipe.shrink.least
        terms = None if self.pricing is None else self.pricing.terms(keep.cpu())
        asked = self.gated, rows, self.recipe.moves, keep, least, terms
        if self.processes is None:
            keep, self.decision = decide_(*asked)
        else:
            keep, self.decision = decide_together_(self.processes, self.state.step, *asked)
        return self.gated.alive & ~keep

    def enter_compact_(self, spread: bool | None = None) -> None:
        """Switch on what stands in for the gates' noise from now on.

        Args:
            spread: whether weights get a posterior; by default as the recipe says.
        """
        recipe, gated = self.recipe, self.gated
        if recipe.compact_scale != 1.0:
            gated.weights = gated.weights.scaled(recipe.compact_scale)
        spread = spreads(recipe, gated) if spread is None else spread
        if spread and not gated.log_scales:
            self._spread_(gated.weights.initial_scale)
        self.engine.enter_compact_()

    def _spread_(self, scale: float) -> None:
        """Give weights a posterior, here and in the copies that are averaged elsewhere."""
        if self.recipe.compact_weights is None:
            self.announced = announcement(self.gated)
        for model in (self.gated, *self.also):
            if isinstance(model, GatedModel):
                model.spread_weights_(scale)

    def undecided(self) -> int:
        """Living gates with 0.01 < q(z = 1) < 0.99; of continuous ones those whose rule is a probability."""
        probs = self.gated.inclusion_prob().detach()
        between = (probs > 0.01) & (probs < 0.99)
        return int((between & ~self.gated.scored() if self.gated.continuous.live else between).sum())

    def standing(self) -> dict[str, Any]:
        """What an epoch's record says of the gates and of the network's size, now."""
        gated = self.gated
        gated.follow_continuous_()
        return {
            "kept": gated.kept(),
            "parameters_percent": 100 * gated.network.parameter_count() / gated.dense_parameters,
            "macs_percent": 100 * gated.network.macs() / gated.dense_macs,
            "undecided": self.undecided(),
            "inclusion": gated.inclusion_prob().detach().cpu().clone(),
        }

    def step_on_(self, batches: list[Pair], stepping: Stepping | None = None) -> None:
        """A step on batches that have been looked at, averaged over their rows.

        Args:
            batches: inputs and targets, on the device.
            stepping: in which precision, and under which norm.
        """
        stepping = stepping or Stepping()
        rows, scaler = sum(len(x) for x, _ in batches), stepping.scaler
        for batch in batches:
            with stepping.forward():
                loss = self._loss(batch, unscaled=len(batches) == 1 and scaler is None)
            loss = loss if len(batches) == 1 else loss * (len(batch[0]) / rows)
            backward(loss if scaler is None else scaler.scale(loss))
        self.reduce()
        if stepping.clip_norm is not None:
            if scaler is not None:
                scaler.unscale_(self.optimizer)
            held = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(held, stepping.clip_norm)
        if scaler is None:
            self.optimizer.step()
        else:
            self._step_scaled(scaler)

    # ---- a step in parts: around the optimiser's own, whoever calls it

    def _loss(self, batch: Pair, unscaled: bool = False) -> Tensor:
        self._last = batch if self.engine.held is not None and not self.state.decided else None
        if not self.engine.opened:
            kind = self.state.velocity.device.type
            if torch.is_autocast_enabled(kind):
                with torch.autocast(kind, enabled=False):  # removals are tried in the weights' own precision
                    self._open_(batch[0])
            else:
                self._open_(batch[0])
        return self.engine.loss(self.state, batch, unscaled)

    def _open_(self, x: Inputs) -> None:
        """What is due before the first batch of a step: the decision, learning rate, prices."""
        step = self.state.step
        if self.processes is None and self._by_default:
            refuse_late(step)
        self.start_()
        if self.finished or (step >= self.schedule.steps and not self._may_run_over):
            raise SettingsError(
                f"The training was planned for steps={self.schedule.steps}, and this would be step "
                f"{step + 1}: its schedule is over. Plan for more, bp.Training(…, steps=…), as many as your "
                "loop takes; what is learnt is there, training.finish()."
            )
        if self.pricing:
            self.pricing.begin_(x)
        if not self.state.decided:
            self.engine.freeze_(step < self.schedule.frozen)
            if self.recipe.decides and step >= self.schedule.decide:
                self.decide()
            elif step == self.schedule.decide:
                self.enter_compact_()
        if self.engine.is_default:
            turned = self.decided_at if self.recipe.decides else self.schedule.decide
            rate = self.schedule.learning_rate(step, turned if turned is None or step >= turned else None)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
        moving, weight = step >= self.schedule.warmup, self.schedule.prior_weight(step)
        if self.pricing and moving and not self.state.decided:
            if step % self.engine.gates.every == 0:
                self.pricing.before_gate_step_(weight, self.state.velocity)
            weight = self.pricing.prior_weight(weight)
        self.state = replace(self.state, prior_weight=weight, moving=moving)
        if self.processes is not None:
            self.processes.open_(self.gated, self.engine.generator, self.seed, step)

    def _prepare(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        """Before the optimiser's own step, or after the closure that it begins with: priors, and gates."""
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._make_ready(optimizer)
            return None

        def first() -> Any:  # Lightning takes losses, and differentiates them, within the optimiser's step
            found = closure()
            self._make_ready(optimizer)
            return found

        return args[:1], {**kwargs, "closure": first}

    def _make_ready(self, optimizer: torch.optim.Optimizer) -> None:
        self._ready = None
        if self.processes is not None and self.state.step == 0 and not self.engine.gathered:
            self._check_unscaled()
        skips: Tensor | None = getattr(optimizer, "found_inf", None)
        if skips is not None and bool(skips):
            return
        self._ready = self.engine.prepare(self.state, getattr(optimizer, "grad_scale", None))

    def _check_unscaled(self) -> None:
        """A scaler that others call looks at each process's own gradients, and may skip a step in one."""
        factor = self.engine.factor()
        if factor > 1.1:
            raise SettingsError(
                f"Losses were multiplied by {factor:g}, as a GradScaler does, which looks for infinities in "
                "each process by itself, and would skip the step in one alone: call training.reduce() after "
                "backward, before gradients are unscaled, clipped or stepped on."
            )

    def _conclude(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """After it: what has a closed form, averages, and a look for what has died."""
        if self._ready is None:
            self.engine.drop_()
            return
        self.passed.add(self._ready[0], self.engine.rows)
        before, (self.state, self._info) = self.state.step, self.engine.conclude(self.state, self._ready)
        self._ready = None
        if self.schedule.averages(before, self.turned_at):
            self._average_()
        if self.state.step % self.schedule.look_every == 0:
            self._check(self._info.nll)
            if self.processes is not None:
                self.processes.compare(self.gated, self.state.velocity, self.state.step)
            self.shrink()
        for callback in self.callbacks:
            callback.on_step(self, self._info)
        if self._records and self.passed.rows >= self.gated.likelihood.rows:
            self.end_epoch()

    def _step_scaled(self, scaler: torch.amp.GradScaler, late: bool = False) -> None:
        if self.engine.frozen:
            raise SettingsError(
                f"frozen={self.recipe.frozen:g}: weights stand still in step {self.state.step + 1}, and a "
                "GradScaler looks at their gradients. Take bfloat16, which needs no scaler, or frozen=0."
            )
        try:
            scaler.unscale_(self.optimizer)
        except RuntimeError as problem:  # its owner has done so, to clip gradients
            if "already been called" not in str(problem):
                raise
            if late:
                raise SettingsError(
                    "scaler.unscale_ was called before gradients were averaged over processes, so that they "
                    "would be clipped, and skipped, by each for itself: call training.reduce() before it."
                ) from problem
        opened = self.engine.opened
        scaler.step(self.optimizer)
        scaler.update()
        if self._info is None and opened:
            self.engine.drop_()

    def _check_scale(self, scaler: torch.amp.GradScaler | None) -> None:
        """Losses of several batches are to be averaged, or the prior weighs too little beside them."""
        opened = self.engine.opened
        if opened < 2 or self.state.step > 1:
            return
        scale = 1.0 if scaler is None or not scaler.is_enabled() else scaler.get_scale()
        total = self.engine.factor() / scale
        if not 0.9 < total < 1.1:
            warnings.warn(
                f"The losses of {opened} batches were differentiated with factors that come to {total:.3g}: "
                f"gradients are {total:.3g} times a mean's, and the priors weigh as much less beside them. "
                f"Divide each by their number, (training.loss(batch) / {opened}).backward().",
                LossScaleWarning,
                stacklevel=level(),
            )

    def _remove_(self, dead: Tensor) -> None:
        if self.processes is not None:
            self.processes.agree("a removal", self.state.step, {"units to remove": digest(dead)})
        if not bool(dead.any()):
            return
        before = self.gated.kept()
        self.engine.remove_(dead)
        self.follow_removals_()
        after = self.gated.kept()
        for callback in self.callbacks:
            callback.on_removal(self, {n: k - after[n] for n, k in before.items() if k > after[n]})

    def follow_removals_(self) -> None:
        """Cut the copies that are averaged elsewhere as the model is cut."""
        for copy in self.also:
            if isinstance(copy, GatedModel):
                copy.remove_(~self.gated.alive)
            else:
                copy.cut_({n: mask.cpu() for n, mask in self.gated.by_group(self.gated.alive).items()})

    # ---- the beginning and the end

    def _join_(self) -> None:
        """Begin where the first process is, where there are several, and all were told the same."""
        if self.processes is None:
            return
        if self.pricing and self.pricing.prior.measured is not None:
            raise SettingsError(
                f"{self.processes.count} processes would each measure milliseconds and megabytes for "
                "themselves, and decide differently: ask for bp.Budget(macs=…, params=…), or train in one "
                "process."
            )
        gated, optimizer = self.gated, self.optimizer
        self.processes.start_(
            gated,
            {
                **{f"recipe.{name}": value for name, value in describe(self.recipe).items()},
                "steps": self.schedule.steps, "seed": self.seed,
                "likelihood": gated.likelihood.identity(), "rows of the likelihood": gated.likelihood.rows,
                "units that are there": gated.kept(), "unit_noise": gated.unit_noise,
                "optimizer": [type(optimizer).__name__, *map(settings_of, optimizer.param_groups)],
                "budget": self.pricing.describe() if self.pricing else None,
            },
        )  # fmt: skip
        self.processes.agree("the start", 0, {"prior": prior_nats(gated)})

    def within_fit_(self) -> None:
        """Epochs are ended, and the schedule's end looked after, by the loop of ``fit``."""
        self._records, self._may_run_over = False, True

    def start_(self) -> None:
        """Before the first step: whether the clock leaves time, and callbacks; by itself, if not before."""
        if self._started:
            return
        self._started = True
        if not self.state.step:
            warn_before(self.gated, self.schedule)
        for callback in self.callbacks:
            callback.on_start(self)

    def _open_gates_(self) -> None:
        """Trained weights rely on all units and sections: the first are likely, the others certain."""
        gated, held = self.gated, optional_units(self.gated)
        gated.log_odds.data[gated.alive] = gated.log_odds.data[gated.alive].clamp_min(OPEN)
        gated.log_odds.data[held & gated.alive] = CERTAIN
        gated.pin_()
        if bool(held.any()):
            self.engine.held = held
            if self.pricing:
                self.pricing.held = held

    def _judge_sections_(self) -> None:
        """Ask sections that were held open what they save, for what they cost or against their price."""
        held = self.engine.held
        if held is None or self._last is None:
            return
        if self.pricing and self.pricing.has_budget:
            self.pricing.gains = self._gains(self.gated.alive)
        else:
            self.gated.log_odds.data[unpaid(self.gated, self._gains, self.engine.prices())] = -CERTAIN
            self.gated.pin_()

    def _gains(self, open_units: Tensor) -> Tensor:
        """(units of all groups,), nats that each section saves, by the rows of all processes."""
        assert self._last is not None
        gains = exact_gains(self.gated, self._last, open_units)
        if self.processes is None:
            return gains
        (averaged,) = self.processes.mean([gains])
        assert averaged is not None
        return averaged

    def _begin_with_(self, batches: Batches) -> None:
        """Look at the training rows, and start in the targets' own unit."""
        self.batches = batches
        self._check_targets = batches.check_targets = check_rows(self.gated, batches)
        batches.teach_(self.gated.likelihood)
        start_in_own_unit_(self.gated, batches, self.also)

    def _begin_(self, x: Any, y: Tensor) -> None:
        """The same by the first batch, where no rows were given."""
        if self.gated.likelihood.asks_for_targets and self.gated.network.frame is None:
            name = type(self.gated.likelihood).__name__
            raise SettingsError(
                f"{name} begins from the mean and the spread of all targets: give the training rows too, "
                "bp.Training(…, rows=(inputs, targets)), or a loader of them."
            )
        self._check_targets = check_first(self.gated, x, y)

    def _finish_(self) -> None:
        """Decide what is not and is to be, and put averaged weights in place; once."""
        if self.finished:
            return
        if not self.recipe.decides:
            self._judge_sections_()
        elif not self.state.decided:
            self.decide()
        parameters = dict(self.gated.network.named_parameters())
        for name, value in self.average.items():
            parameters[name].data.copy_(value)
        if (self.average or self.recipe.start == "trained") and self.batches is not None:
            # Means and variances of batch normalisation under the last weights, over an epoch's batches.
            self.gated.network.eval().renormalise_(x for x, _ in self.batches.epoch(0))
            if self.processes is not None:
                self.processes.average_statistics_(self.gated, self.state.step)
        if self._records and self.passed.rows:
            self.end_epoch()
        for hook in self._hooks:
            hook.remove()
        self.finished = True
        for callback in self.callbacks:
            callback.on_end(self)

    def _average_(self) -> None:
        self.averaged += 1
        if not self.average:
            named = self.gated.network.named_parameters()
            self.average = {name: parameter.detach().clone() for name, parameter in named}
            return
        if self._learnt is None:  # nothing is removed any more
            parameters = dict(self.gated.network.named_parameters())
            self._learnt = [parameters[name] for name in self.average]
        now = [parameter.data for parameter in self._learnt]
        torch._foreach_lerp_(list(self.average.values()), now, 1 / self.averaged)

    def _check(self, value: Tensor) -> None:
        if bool(torch.isfinite(value)):
            return
        gates = f"gates.learning_rate ({self.engine.gates.learning_rate:g})"
        rate = max(float(group["lr"]) for group in self.optimizer.param_groups)
        raise DivergedError(
            f"The loss became {float(value)} by step {self.state.step} (epoch {len(self.history) + 1}). "
            f"Lower learning_rate (now {rate:g}) or {gates}, and look at the inputs' scale; finished epochs' "
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


def _copy_within(module: nn.Module) -> GatedModel | GraphNetwork:
    """The copy of a gated model that a module holds which averages it.

    Raises:
        SettingsError: there is none.
    """
    for inner in (module, getattr(module, "module", None), getattr(module, "ema", None)):
        if isinstance(inner, GatedModel | GraphNetwork):
            return inner
    raise SettingsError(
        f"also= holds a {type(module).__name__} in which there is no copy of the gated model: make it of "
        "that, torch.optim.swa_utils.AveragedModel(gated), after bp.gate()."
    )
