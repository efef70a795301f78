"""fit(): learn and prune in one loop."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bayesprune.gated import GatedModel
from bayesprune.gated.precision import refuse_autocast, refuse_no_grad
from bayesprune.rows import InMemory, Rows, rows_from
from bayesprune.structure.copying import copy_of
from bayesprune.svi.batches import Batches, Train
from bayesprune.svi.checkpoint import Keeper
from bayesprune.svi.checks import check_model, check_rows, check_settings, check_validation, device_of
from bayesprune.svi.clock import warn_after, warn_before
from bayesprune.svi.evaluate import quality
from bayesprune.svi.loader_noise import LoaderNoise
from bayesprune.svi.objective import gate_nats, weight_nats
from bayesprune.svi.own_unit import start_in_own_unit_
from bayesprune.svi.progress import Progress
from bayesprune.svi.result import Epoch, FitResult
from bayesprune.svi.row_digest import describe_rows
from bayesprune.svi.run import Run
from bayesprune.svi.settings import Recipe, Shrink, describe
from bayesprune.svi.threads import threads_for, using_threads


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
) -> FitResult:
    """Learn a gated model's posterior, removing units physically as their gates die.

    Args:
        gated: from ``gate``; it is copied, and left alone.
        train: (inputs, targets), tensors or numpy arrays; a torch ``Dataset`` of such pairs; a DataLoader, of
            whose rows those count that its sampler draws in an epoch; or a stream, anything that yields
            batches each time it is iterated over. They must be as many as the likelihood was told of.
        epochs: passes over the rows.
        batch_size: rows of a step, 128 by default; a DataLoader has its own.
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
        resume=resume, progress=progress, on_epoch=on_epoch,
    )  # fmt: skip
    recipe = recipe or Recipe()
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
        count = threads or threads_for(working.dense_macs, batches.batch_size)
        stack.enter_context(using_threads(count) if where.type == "cpu" else nullcontext())
        batches.check_targets = check_rows(working, batches)
        batches.teach_(working.likelihood)
        start_in_own_unit_(working, batches)
        run = Run(working, batches, recipe, epochs, seed)
        if not resume:
            warn_before(run.gated, run.schedule)
        keeper = None
        if checkpoint is not None:
            settings = _identity(run, epochs, batches.batch_size, seed, train)
            noise = LoaderNoise(train, in_memory=isinstance(batches.source, InMemory))
            keeper = stack.enter_context(Keeper(Path(checkpoint), settings, noise))
            keeper.begin_(run, resume)
        _loop(run, epochs, keeper, held_out, progress, on_epoch)
        run.finish_()
    decided_epoch = None if run.decided_at is None else min(run.decided_at // batches.steps + 1, epochs)
    history = (*run.history[:-1], replace(run.history[-1], **run.standing()))
    result = FitResult(run.gated.eval(), history, run.seconds, run.rounded, decided_epoch)
    warn_after(result)
    return result


def _identity(run: Run, epochs: int, batch_size: int, seed: int, train: Train) -> dict[str, Any]:
    """What must be equal for one run to go on where another stopped; weights come from the checkpoint."""
    gated = run.gated
    return {
        "epochs": epochs, "batch_size": batch_size, "seed": seed, "rows": run.batches.rows,
        "data": describe_rows(train), "network": _form(gated),
        "likelihood": gated.likelihood.identity(run.batches.targets),
        "recipe": describe(run.recipe), "groups": {g.name: g.size for g in gated.groups},
        "unit_noise": gated.unit_noise, "prior_nats": _prior_nats(gated),
        "cost_prices": run.pricing.describe() if run.pricing else None,
    }  # fmt: skip


def _form(gated: GatedModel) -> str:
    """A digest of the network's layers as they print, without addresses in memory."""
    return hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", repr(gated.network)).encode()).hexdigest()[:16]


def _prior_nats(gated: GatedModel) -> list[float]:
    """The priors' value at two places, by which another prior, price or weight scale is told apart."""
    places = [torch.full_like(gated.log_odds.data, share) for share in (0.5, 0.9)]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):  # some priors draw: the training must not notice
        torch.manual_seed(0)
        weights = float(weight_nats(gated, places[0]))
        return [weights, *(float(gate_nats(gated, probs)) for probs in places)]


def _loop(
    run: Run,
    epochs: int,
    keeper: Keeper | None,
    validation: Rows | None,
    progress: bool,
    on_epoch: Callable[[Epoch], None] | None,
) -> None:
    bar = Progress(run.schedule.steps, run.state.step, progress)
    try:
        while len(run.history) < epochs:
            run.epoch_(bar)
            if validation is not None:
                with torch.random.fork_rng(devices=[]):  # a loader's noise must not steer the training
                    score = quality(run.gated, validation).score
                run.history[-1] = replace(run.history[-1], validation=score)
            if keeper is not None:
                keeper.save(run)
            if on_epoch is not None:
                on_epoch(run.history[-1])
    finally:
        bar.close()
