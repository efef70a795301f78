"""What is asked of fit, checked before it starts: place, value, remedy."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler
from torch.utils._python_dispatch import TorchDispatchMode

from bayesprune.callers import level
from bayesprune.errors import DataError, LikelihoodError, LikelihoodWarning, SettingsError
from bayesprune.gated import GatedModel
from bayesprune.gated.rows import check_targets, outputs_on, running
from bayesprune.likelihoods import Distilled
from bayesprune.likelihoods.output_range import ROWS, output_range
from bayesprune.ranges import SEED_RULE, is_seed, is_whole
from bayesprune.rows import Inputs, Pair, Rows
from bayesprune.structure.altered import check_present
from bayesprune.structure.copying import copy_of
from bayesprune.svi.batches import Batches
from bayesprune.svi.callbacks import Callback
from bayesprune.svi.settings import Recipe, Shrink


def check_model(gated: Any) -> None:
    """What is fitted must be gated.

    Raises:
        SettingsError: it is something else.
        UnsupportedNetworkError: somebody has put on its layers what hides their tensors.
    """
    if isinstance(getattr(gated, "module", None), GatedModel):
        name = type(gated).__name__
        raise SettingsError(
            f"This is a {name} around the gated model, whose hooks hold gradients in the sizes that weights "
            f"had before removals: give the model itself, .module, and leave {name} out; a training averages "
            "gradients over processes by itself."
        )
    if not isinstance(gated, GatedModel):
        raise SettingsError(
            f"fit takes a gated model and got a {type(gated).__name__}: make one, bp.gate(network, example, "
            "prior=…, likelihood=…); of an earlier fit it is result.gated."
        )
    sharded = [n for n, p in gated.named_parameters() if hasattr(p, "placements") and hasattr(p, "to_local")]
    if sharded:
        raise SettingsError(
            f"{sharded[0]} and {len(sharded) - 1} more are shared out over processes (DTensor, as by "
            "fully_shard or tensor parallelism), and units are removed from whole tensors alone: leave that "
            "out. A training averages gradients over processes by itself, each of which holds the model."
        )
    check_present(gated.network, gated.network.cut_names())


def check_settings(
    *,
    epochs: Any,
    seed: Any,
    recipe: Any,
    shrink: Any,
    threads: Any,
    checkpoint: Any,
    resume: Any,
    progress: Any,
    on_epoch: Any,
    optimizer: Any = None,
    scheduler: Any = None,
    scheduler_every: Any = "step",
    accumulate: Any = 1,
    clip_norm: Any = None,
    autocast: Any = None,
    callbacks: Any = (),
    decide: Any = None,
) -> None:
    """Every setting must be of its kind and in range.

    Raises:
        SettingsError: everything that is not, at once.
    """
    rules = [
        (is_whole(epochs) and epochs >= 1, f"epochs={epochs!r} must be a whole number, at least 1"),
        (is_seed(seed), f"seed={seed!r} {SEED_RULE}"),
        (
            recipe is None or isinstance(recipe, Recipe),
            f"recipe={recipe!r} must be a bp.Recipe(...), or left out",
        ),
        (
            shrink is None or isinstance(shrink, Shrink),
            f"shrink={shrink!r} must be a bp.Shrink(...), or left out",
        ),
        (
            threads is None or (is_whole(threads) and threads >= 1),
            f"threads={threads!r} must be a whole number, at least 1, or left out",
        ),
        (
            checkpoint is None
            or (isinstance(checkpoint, str | os.PathLike) and not os.path.isfile(checkpoint)),
            f"checkpoint={checkpoint!r} must be the name of a folder, and not of a file, or left out",
        ),
        (isinstance(resume, bool), f"resume={resume!r} must be True or False"),
        (isinstance(progress, bool), f"progress={progress!r} must be True or False"),
        (
            checkpoint is not None or not resume,
            "resume=True has nothing to go on from: name the folder, checkpoint='…'",
        ),
        (
            on_epoch is None or callable(on_epoch),
            f"on_epoch={on_epoch!r} must be a function of an Epoch, or left out",
        ),
        (
            optimizer is None or (callable(optimizer) and not isinstance(optimizer, torch.optim.Optimizer)),
            f"optimizer={_told(optimizer)} must be a class, or a function of parameters that makes one, such "
            "as lambda params: torch.optim.SGD(params, lr=0.1): fit learns on a copy of the model, whose "
            "parameters are not there yet; an optimiser that is made goes to bp.Training",
        ),
        (
            scheduler is None or (callable(scheduler) and not isinstance(scheduler, LRScheduler)),
            f"scheduler={_told(scheduler)} must be a function of the optimiser that makes one, such as "
            "lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 30)",
        ),
        (
            scheduler is None or optimizer is not None,
            "scheduler= needs an optimizer=: the default one's learning rate follows the recipe",
        ),
        (
            scheduler_every in ("step", "epoch"),
            f"scheduler_every={scheduler_every!r} must be 'step' or 'epoch'",
        ),
        (
            is_whole(accumulate) and accumulate >= 1,
            f"accumulate={accumulate!r} must be a whole number of batches, at least 1",
        ),
        (
            clip_norm is None
            or (
                isinstance(clip_norm, int | float)
                and not isinstance(clip_norm, bool)
                and 0 < clip_norm < math.inf
            ),
            f"clip_norm={clip_norm!r} must be a positive number, or left out",
        ),
        (
            autocast in (None, torch.bfloat16, torch.float16),
            f"autocast={autocast!r} must be torch.bfloat16 or torch.float16, or left out",
        ),
        (
            isinstance(callbacks, tuple | list) and all(isinstance(c, Callback) for c in callbacks),
            f"callbacks={callbacks!r} must be a list of bp.Callback",
        ),
        (
            decide is None or isinstance(decide, bool),
            f"decide={decide!r} must be True or False; when gates are decided is Recipe(decide=...)",
        ),
    ]
    wrong = [message for holds, message in rules if not holds]
    if wrong:
        raise SettingsError(f"fit cannot start: {'; '.join(wrong)}.")


def _told(value: Any) -> str:
    return type(value).__name__ if isinstance(value, torch.optim.Optimizer | LRScheduler) else repr(value)


def check_training(*, steps: Any, recipe: Any, seed: Any) -> None:
    """Every setting of a training must be of its kind and in range.

    Raises:
        SettingsError: everything that is not, at once.
    """
    rules = [
        (is_whole(steps) and steps >= 1, f"steps={steps!r} must be a whole number, at least 1"),
        (is_seed(seed), f"seed={seed!r} {SEED_RULE}"),
        (
            recipe is None or isinstance(recipe, Recipe),
            f"recipe={recipe!r} must be a bp.Recipe(...), or left out",
        ),
    ]
    wrong = [message for holds, message in rules if not holds]
    if wrong:
        raise SettingsError(f"The training cannot start: {'; '.join(wrong)}.")


def device_of(device: Any) -> torch.device:
    """A device that is there.

    Raises:
        SettingsError: it is unknown, not there, or holds no numbers.
    """
    try:
        where = torch.device(device)
        if where.type != "meta":
            torch.zeros(1, device=where)
            return where
        reason = "it holds no numbers"
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as problem:
        reason = str(problem).partition("\n")[0].rstrip(".")
    raise SettingsError(f"device={device!r} cannot be used here: {reason}. Take device='cpu'.")


def check_rows(gated: GatedModel, batches: Batches) -> Callable[[Tensor, str], None]:
    """The training rows, against model and likelihood; and what checks targets that come later.

    Args:
        gated: the model, on the device of the training.
        batches: of the training rows.

    Returns:
        A function of targets (batch, ...) and of their place.

    Raises:
        LikelihoodError: another number of rows than the likelihood was told, or targets that it cannot
            score, or that depend on parameters that it does not hold; or a teacher that does not fit.
        DataError: rows that the network does not run on, in evaluation or in training.
    """
    told = gated.likelihood.rows
    if batches.rows != told:
        factor = told / batches.rows
        much = f"{1 / factor:.3g} times too much" if factor < 1 else f"{factor:.3g} times too little"
        raise LikelihoodError(
            f"The likelihood was told of rows={told}, and the training data has {batches.rows}: the prior "
            f"would weigh {much}. Build it with rows={batches.rows}."
        )
    x, y = next(batches.epoch(0))
    outputs = _rehearsed(gated, batches, x)
    return _checked(gated, outputs, (x, y), "train", y if batches.targets is None else batches.targets)


def check_first(gated: GatedModel, x: Inputs, y: Tensor) -> Callable[[Tensor, str], None]:
    """The first batch of a loop of one's own, likewise.

    Args:
        gated: the model.
        x: (rows, ...), inputs on the model's device.
        y: their targets.

    Returns:
        A function of targets (batch, ...) and of their place.

    Raises:
        LikelihoodError, DataError: as ``check_rows``.
    """
    outputs = outputs_on(gated.network, x[:2], "batch of step 1")
    return _checked(gated, outputs, (x, y), "batch of step 1", y)


def _checked(
    gated: GatedModel, outputs: Tensor, batch: Pair, place: str, targets: Tensor
) -> Callable[[Tensor, str], None]:
    def check(targets: Tensor, place: str) -> None:
        check_targets(gated.likelihood, outputs, targets.to(outputs.device), place)

    check(targets, place)
    _doubt(gated, batch[0][:ROWS])
    gated.likelihood.check_held(outputs, batch[1][: len(outputs)].to(outputs.device))
    if isinstance(gated.likelihood, Distilled):
        gated.likelihood.check_teacher(batch[0][:ROWS], outputs)
    return check


def _doubt(gated: GatedModel, x: Inputs) -> None:
    """Say where outputs are of another kind than the likelihood takes them for."""
    seen = output_range(gated.network, lambda network: outputs_on(network, x, "train"))
    doubt = gated.likelihood.doubt(seen)
    if doubt:
        warnings.warn(f"{type(gated.likelihood).__name__}: {doubt}", LikelihoodWarning, stacklevel=level())


def _rehearsed(gated: GatedModel, batches: Batches, x: Inputs) -> Tensor:
    """(two rows, ...), outputs in evaluation, after a look whether the smallest batch can be learnt from."""
    outputs = outputs_on(gated.network, x[:2], "train")
    smallest = batches.source.smallest_batch(batches.batch_size)
    if smallest == 1:
        network = copy_of(gated.network).train()  # its statistics move
        with torch.no_grad(), torch.random.fork_rng(), _SeveralValues():
            try:
                running(lambda: network(x[:1]), x[:1], "train")
            except DataError as problem:
                remedy = "drop_last=True in the DataLoader" if batches.loader else "a batch_size above 1"
                raise DataError(
                    f"{problem} It is the size of the smallest batch: batch normalisation cannot learn from "
                    f"one row. Take {remedy}."
                ) from problem
    return outputs


class _SeveralValues(TorchDispatchMode):
    """Refuses what ``nn.BatchNorm`` refuses, and the operation that stands in its graph does not."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look, then do it."""
        if "batch_norm" in func._schema.name and "backward" not in func._schema.name:
            names = [argument.name for argument in func._schema.arguments]
            given = {**dict(zip(names, args, strict=False)), **(kwargs or {})}
            x = given["input"]
            if given.get("training", True) and x.numel() == x.shape[1]:
                raise ValueError(
                    f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)}"
                )
        return func(*args, **(kwargs or {}))


def check_validation(gated: GatedModel, rows: Rows) -> None:
    """Rows that a score is reported on, against the model: before the training, not after its first epoch.

    Args:
        gated: the model, on the device of the training.
        rows: of validation.

    Raises:
        DataError: rows that the network does not run on.
        LikelihoodError: targets that the likelihood cannot score.
    """
    x, y = next(rows.batches(2, gated.log_odds.device))
    check_targets(gated.likelihood, outputs_on(gated.network, x[:2], rows.place), y, rows.place)
