"""fit(): learn and prune in one loop."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from bayesprune.gated import GatedModel
from bayesprune.gated.precision import refuse_autocast, refuse_no_grad
from bayesprune.rows import InMemory, Rows, rows_from
from bayesprune.rows.digests import known_by
from bayesprune.structure.copying import copy_of
from bayesprune.svi.batches import Batches, Train, grouped
from bayesprune.svi.callbacks import Callback
from bayesprune.svi.checkpoint import Keeper, follow_
from bayesprune.svi.checks import check_model, check_settings, check_validation, device_of
from bayesprune.svi.evaluate import quality
from bayesprune.svi.loader_noise import LoaderNoise
from bayesprune.svi.objective import prior_nats
from bayesprune.svi.processes import Processes
from bayesprune.svi.progress import Progress
from bayesprune.svi.result import Epoch, FitResult
from bayesprune.svi.row_digest import describe_rows
from bayesprune.svi.scheduler import Scheduler
from bayesprune.svi.settings import Recipe, Shrink, describe
from bayesprune.svi.stepping import Stepping
from bayesprune.svi.subnormals import subnormals_as_zero
from bayesprune.svi.threads import threads_for, using_threads
from bayesprune.svi.training import Training


def fit(
    gated: GatedModel,
    train: Train,
    *,
    epochs: int = 30,
    batch_size: int | None = None,
    seed: int = 0,
    recipe: Recipe | None = None,
    shrink: Shrink | None = None,
    device: str | torch.device = "cpu",
    threads: int | None = None,
    rows: int | None = None,
    validation: Train | None = None,
    checkpoint: Path | str | None = None,
    resume: bool = False,
    progress: bool = True,
    on_epoch: Callable[[Epoch], None] | None = None,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
    scheduler: Callable[[torch.optim.Optimizer], LRScheduler] | None = None,
    scheduler_every: str = "step",
    accumulate: int = 1,
    clip_norm: float | None = None,
    autocast: torch.dtype | None = None,
    callbacks: Iterable[Callback] = (),
    start: str | None = None,
    decide: bool | None = None,
) -> FitResult:
    """Learn a gated model's posterior, removing units physically as their gates die.

    Args:
        gated: from ``gate``; it is copied, and left alone.
        train: (inputs, targets), tensors or numpy arrays; a torch ``Dataset`` of such pairs; a DataLoader, of
            whose rows those count that its sampler draws in an epoch; or a stream, anything that yields
            batches each time it is iterated over. They must be as many as the likelihood was told of.
            Where ``torch.distributed`` was initialised, all processes are given the same rows, and each takes
            its share of every batch; a DataLoader deals with a ``DistributedSampler``.
        epochs: passes over the rows.
        batch_size: rows of a step in all processes, 128 by default; a DataLoader has its own.
        seed: of row order and gates; the weights start as they are in ``gated``.
        recipe: how; by default ``Recipe()``.
        shrink: overrides the recipe's.
        device: where it runs.
        threads: processor threads on a CPU; by default one for small networks and more for large ones, by the
            size of a step alone, at most PyTorch's number. PyTorch has its own number again afterwards.
        rows: of the training set, for what cannot be counted: streams, and loaders whose epoch is a sample.
        validation: rows that the history reports a score on; they steer nothing.
        checkpoint: a folder for one checkpoint an epoch, of this training alone. Where a checkpoint cannot
            be written the training ends, since nothing after it could be kept; those before it are whole.
        resume: go on from the folder's newest checkpoint, to the bit-equal result on a CPU. The data must be
            the same, byte by byte where they are in memory. A DataLoader's generators, and those of its
            samplers, go on where they were; a sampler or dataset that counts epochs by itself, and workers
            that persist, begin anew.
        progress: show a progress bar on stderr.
        on_epoch: called with every epoch's record.
        optimizer: a class of ``torch.optim``, or a function of parameters that makes an optimiser; by default
            fused Adam under the recipe's learning rates. See ``Training``.
        scheduler: a function of the optimiser that makes a scheduler of its learning rate.
        scheduler_every: ``"step"`` or ``"epoch"``: after which of them the scheduler steps.
        accumulate: batches whose gradients are averaged for one step.
        clip_norm: largest norm of all gradients of the weights' likelihood together, in a step.
        autocast: ``torch.bfloat16`` or ``torch.float16``: forward passes run under it, and float16's losses
            are scaled; gates and priors stay in float32.
        callbacks: told of steps, removals, the decision and epochs; they may end the training.
        start: ``"trained"`` where the network has learnt already: what the recipe leaves at its default is
            then ``Recipe.trained``'s.
        decide: False leaves gates undecided, as ``Recipe(decides=False)``: the result is a posterior over
            masks.

    Returns:
        The fitted model and its history.

    Raises:
        LikelihoodError: data that do not fit the likelihood, or another number of rows than it was told.
        DataError: no rows, rows of another shape or type than the network was gated on, or values that are
            not finite; in a loader, when they come.
        SettingsError: a setting out of range, ``resume`` without ``checkpoint``, or a batch size beside a
            DataLoader of another; or autocast, or a mode without gradients, is on around it.
        DivergedError: the loss became NaN or infinite.
        CheckpointError: the checkpoint to go on from is corrupt, or of another run; the folder holds
            checkpoints and ``resume`` was not given; or the loader draws from what cannot be kept.
        RunFolderError: another process trains into the same folder.
        OSError: a checkpoint cannot be written; the file is named.

    Warns:
        ClockWarning: before it starts, where so few steps cannot decide any gate by evidence; when it ends,
            where more than 0.05 of the gates were decided because time was up.
    """
    check_model(gated)
    check_settings(
        epochs=epochs, seed=seed, recipe=recipe, shrink=shrink, threads=threads, checkpoint=checkpoint,
        resume=resume, progress=progress, on_epoch=on_epoch, optimizer=optimizer, scheduler=scheduler,
        scheduler_every=scheduler_every, accumulate=accumulate, clip_norm=clip_norm, autocast=autocast,
        callbacks=callbacks, decide=decide,
    )  # fmt: skip
    recipe = (recipe or Recipe()).begun(start)
    recipe = recipe if decide is None else replace(recipe, decides=decide)
    recipe = replace(recipe, shrink=shrink) if shrink else recipe
    where, held_out = device_of(device), None
    refuse_autocast("fit", where.type)
    refuse_no_grad("fit")
    with torch.random.fork_rng(devices=[]), contextlib.ExitStack() as stack:
        torch.manual_seed(seed)
        working = copy_of(gated).to(where)
        if validation is not None:
            held_out = rows_from(validation, "validation", form=gated.form)
            check_validation(working, held_out)
        batches = Batches(train, batch_size, where, seed, rows=rows, form=gated.form)
        batches.deal_(Processes.of(None, where))
        count = threads or threads_for(working.dense_macs, batches.batch_size)
        stack.enter_context(using_threads(count) if where.type == "cpu" else nullcontext())
        stack.enter_context(subnormals_as_zero())
        count_steps = -(-batches.steps // accumulate) * epochs
        training = Training(
            working, steps=count_steps, optimizer=optimizer, recipe=recipe, seed=seed, rows=batches,
            callbacks=callbacks,
        )  # fmt: skip
        stepping = Stepping(accumulate, clip_norm, autocast, where.type)
        loop = _Loop(training, batches, epochs, stepping, held_out, on_epoch)
        loop.scheduler = Scheduler.of(scheduler, training.optimizer, scheduler_every)
        settings: dict[str, Any] = {}
        if checkpoint is not None or training.processes is not None:
            settings = _identity(training, batches, epochs, seed, train) | loop.describe()
        if training.processes is not None:
            training.processes.agree("the start", 0, settings)
        if checkpoint is not None:
            noise = LoaderNoise(train, in_memory=isinstance(batches.source, InMemory))
            if training.leads:
                loop.keeper = stack.enter_context(Keeper(Path(checkpoint), settings, noise))
            loop.begin_(resume)
        loop.run_(progress and training.leads)
        known = known_by(batches.source.x) if isinstance(batches.source, InMemory) else None
        return replace(training.result(), trained_on=known)


def _identity(training: Training, batches: Batches, epochs: int, seed: int, train: Train) -> dict[str, Any]:
    """What must be equal for one run to go on where another stopped; weights come from the checkpoint."""
    gated = training.gated
    return {
        "epochs": epochs, "batch_size": batches.batch_size, "seed": seed, "rows": batches.rows,
        "data": describe_rows(train), "network": _form(gated),
        "likelihood": gated.likelihood.identity(batches.targets),
        "recipe": describe(training.recipe), "groups": {g.name: g.size for g in gated.groups},
        "unit_noise": gated.unit_noise, "prior_nats": prior_nats(gated),
        "cost_prices": training.pricing.describe() if training.pricing else None,
    }  # fmt: skip


def _form(gated: GatedModel) -> str:
    """A digest of the network's layers as they print, without addresses in memory."""
    return hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", repr(gated.network)).encode()).hexdigest()[:16]


class _Loop:
    """Passes over the rows, and what happens between them.

    Args:
        training: before its first step.
        batches: of its rows.
        epochs: passes.
        stepping: how a step is taken.
        validation: rows to score on, or None.
        on_epoch: called with every record, or None.
    """

    def __init__(
        self,
        training: Training,
        batches: Batches,
        epochs: int,
        stepping: Stepping,
        validation: Rows | None,
        on_epoch: Callable[[Epoch], None] | None,
    ) -> None:
        self.training, self.batches, self.epochs = training, batches, epochs
        self.stepping = stepping
        self.validation, self.on_epoch = validation, on_epoch
        self.scheduler: Scheduler | None = None
        self.keeper: Keeper | None = None
        training.within_fit_()

    def describe(self) -> dict[str, Any]:
        """What else must be equal for a resumed run."""
        optimiser = type(self.training.optimizer).__name__
        return {"optimizer": optimiser, **self.stepping.describe()}

    def begin_(self, resume: bool) -> None:
        """Go on from the newest checkpoint, if there is one to go on from."""

        def begin() -> dict[str, Any]:
            assert self.keeper is not None
            return self.keeper.begin_(self.training, self.batches, resume)

        processes = self.training.processes
        plain = begin() if processes is None else follow_(self.training, processes, begin)
        if self.scheduler is not None and plain.get("scheduler") is not None:
            self.scheduler.load_state_dict(plain["scheduler"])
        if self.stepping.scaler is not None and plain.get("scaler") is not None:
            self.stepping.scaler.load_state_dict(plain["scaler"])

    def run_(self, progress: bool) -> None:
        """All epochs that are left."""
        training = self.training
        bar = Progress(training.schedule.steps, training.steps, progress)
        training.start_()
        bar.say(training.announced)
        try:
            while len(training.history) < self.epochs and not training.stopping:
                self._epoch_(bar)
        finally:
            bar.close()

    def _epoch_(self, bar: Progress) -> None:
        training = self.training
        training.gated.train()
        for batches in grouped(self.batches.epoch(len(training.history)), self.stepping.accumulate):
            if training.processes is not None:  # what layers draw is another in every process
                torch.manual_seed(training.processes.seed_of(training.seed, training.steps))
            training.step_on_(batches, self.stepping)
            if self.scheduler is not None:
                self.scheduler.after_step()
            bar.advance()
            bar.say(training.announced)
            if training.steps % training.schedule.look_every == 0:
                bar.tell(training.gated, training.history[-1].elbo if training.history else None)
            if training.stopping:
                break
        record = training.end_epoch()
        if self.validation is not None:
            with torch.random.fork_rng(devices=[]):  # a loader's noise must not steer the training
                score = quality(training.gated, self.validation).score
            record = training.history[-1] = replace(record, validation=score)
        if self.scheduler is not None:
            self.scheduler.after_epoch(record)
        bar.tell(training.gated, record.elbo)
        for callback in training.callbacks:
            callback.on_epoch(training, record)
        if self.keeper is not None:
            scheduler = None if self.scheduler is None else self.scheduler.state_dict()
            scaler = self.stepping.scaler
            self.keeper.save(training, scheduler, None if scaler is None else scaler.state_dict())
        if self.on_epoch is not None:
            self.on_epoch(record)
