"""Checkpoints: everything a training needs to go on to the bit-equal result, one training a folder."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from bayesprune.errors import CheckpointError
from bayesprune.files import sweep, write_atomically
from bayesprune.lock import FolderLock
from bayesprune.svi.batches import Batches
from bayesprune.svi.checkpoint_file import FORMAT, REMEDY, pack, run_of, unpack
from bayesprune.svi.loader_noise import LoaderNoise
from bayesprune.svi.processes import Processes
from bayesprune.svi.settings import Recipe, describe
from bayesprune.svi.training import Training
from bayesprune.svi.training_state import TrainingState, put_, taken

KEEP = 2
FILES = "epoch-*.safetensors"
_NAME = re.compile(r"epoch-(\d{4,12})\.safetensors")


class Keeper:
    """The checkpoints of one training in their folder, which nobody else uses meanwhile; a context.

    Args:
        folder: made if missing.
        settings: what must be equal for a training to go on from here.
        noise: of the data's loader.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], noise: LoaderNoise) -> None:
        self.folder, self.settings, self.noise = folder, settings, noise
        self.run_id = secrets.token_hex(16)  # by which its checkpoints are told from those of any other
        self._lock = FolderLock(folder)

    def __enter__(self) -> Keeper:
        self._lock.__enter__()
        sweep(self.folder, FILES)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, trace)

    def begin_(self, training: Training, batches: Batches, resume: bool) -> dict[str, Any]:
        """Bring a fresh training to where its newest checkpoint left off, if it has one.

        Args:
            training: just begun.
            batches: of its rows.
            resume: whether it may have one.

        Returns:
            What was kept beside it; nothing where there was none.

        Raises:
            CheckpointError: it has one that it may not have, or that cannot be gone on from.
        """
        if not resume:
            check_unused(self.folder)
        elif newest := newest_of_one(self.folder):
            plain = restore_(training, batches, newest, self.settings, self.noise)
            self.run_id = str(plain["run"])
            _thin(self.folder)  # whoever was killed between writing a checkpoint and deleting an old one
            return plain
        return {}

    def save(
        self,
        training: Training,
        scheduler: dict[str, Any] | None = None,
        scaler: dict[str, Any] | None = None,
    ) -> Path:
        """Write a checkpoint of the epochs finished so far.

        Args:
            training: at the end of an epoch.
            scheduler: state of its learning rates' scheduler, if it has one.
            scaler: of its losses' scaler, likewise.
        """
        extra = {"scheduler": scheduler, "scaler": scaler}
        return save(training, self.folder, self.settings, self.run_id, self.noise, extra)


def numbered(folder: Path) -> list[tuple[int, Path]]:
    """Checkpoints of a folder by the number of their epoch, the newest last."""
    found = [(match, path) for path in folder.glob(FILES) if (match := _NAME.fullmatch(path.name))]
    return sorted((int(match[1]), path) for match, path in found)


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a folder, if there is one."""
    found = numbered(folder)
    return found[-1][1] if found else None


def check_unused(folder: Path) -> None:
    """Make sure that a new training can have a folder.

    Args:
        folder: where its checkpoints shall go.

    Raises:
        CheckpointError: it has those of another training, which would be taken for its own later.
    """
    if found := latest(folder):
        raise CheckpointError(
            f"{folder} holds the checkpoints of a training ({found.name}), and is left as it is. Go on with "
            "that one by resume=True, or give a new one another folder."
        )


def newest_of_one(folder: Path) -> Path | None:
    """The checkpoint to go on from, if there is one.

    Args:
        folder: with the checkpoints of one training.

    Raises:
        CheckpointError: there are those of two.
    """
    by_run: dict[str, str] = {}
    for _, path in numbered(folder):
        if run := run_of(path):
            by_run[run] = path.name
    if len(by_run) > 1:
        raise CheckpointError(
            f"{folder} holds checkpoints of several trainings ({', '.join(by_run.values())}): which of them "
            "to go on with cannot be known. Move those of the others away."
        )
    return latest(folder)


def save(
    training: Training,
    folder: Path,
    settings: dict[str, Any],
    run_id: str,
    noise: LoaderNoise,
    extra: Mapping[str, Any],
) -> Path:
    """Write a checkpoint for the epochs finished so far; the last two are kept.

    Args:
        training: at the end of an epoch.
        folder: where checkpoints lie; made if missing.
        settings: what must be equal for a run to go on from here.
        run_id: of the training.
        noise: of the data's loader.
        extra: further plain values.

    Returns:
        The file.

    Raises:
        OSError: it cannot be written; the checkpoints before it are left.
    """
    state = taken(training)
    plain = {"format": FORMAT, "run": run_id, "settings": settings, **state.plain, **extra}
    tensors = {**state.tensors, "torch_noise": torch.get_rng_state()}
    tensors |= {f"loader/{name}": value for name, value in noise.states().items()}
    for number, callback in enumerate(training.callbacks):
        tensors |= {f"callback/{number}/{k}": v for k, v in callback.state_dict().items()}
    path = folder / f"epoch-{len(training.history):04d}.safetensors"
    write_atomically(path, pack({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, plain))
    _thin(folder)
    return path


def _thin(folder: Path) -> None:
    for _, old in numbered(folder)[:-KEEP]:
        old.unlink(missing_ok=True)


def restore_(
    training: Training, batches: Batches, path: Path, settings: dict[str, Any], noise: LoaderNoise
) -> dict[str, Any]:
    """Bring a fresh training to where a checkpoint left off.

    Args:
        training: just begun, on the same model, data and settings.
        batches: of its rows.
        path: the checkpoint.
        settings: of this run; they must be the checkpoint's.
        noise: of the data's loader, which goes on where it was.

    Returns:
        The checkpoint's plain values.

    Raises:
        CheckpointError: the file is truncated, damaged, renamed, or belongs to another run; nothing was
            changed then, neither in the training nor in PyTorch's random numbers.
    """
    tensors, plain = unpack(path)
    was = plain["settings"]
    if isinstance(was.get("recipe"), dict):  # what an earlier version could not be told is as it was then
        was = was | {"recipe": describe(Recipe()) | was["recipe"]}
    differs = [k for k in settings if was.get(k) != settings[k]]
    if differs:
        told = ", ".join(f"{k}={was.get(k)!r} (now {settings[k]!r})" for k in differs)
        raise CheckpointError(
            f"{path} was written with other settings: {told}. Use those, or another folder."
        )
    if path.name != f"epoch-{len(plain['epochs']):04d}.safetensors":
        raise CheckpointError(
            f"{path} holds {len(plain['epochs'])} epochs: it was renamed, and may not be the newest. {REMEDY}"
        )
    loader = _part(tensors, "loader")
    kept = {n: _part(_part(tensors, "callback"), str(n)) for n in range(len(training.callbacks))}
    own = ("loader/", "callback/", "torch_noise")
    state = TrainingState({k: v for k, v in tensors.items() if not k.startswith(own)}, plain)
    try:
        steps = len(plain["epochs"]) * -(-batches.steps // settings.get("accumulate", 1))
        skips = settings.get("autocast") == str(torch.float16)  # a scaler leaves steps out that overflow
        if plain["step"] > steps or (plain["step"] < steps and not skips):
            raise ValueError(f"step {plain['step']} is not the end of epoch {len(plain['epochs'])}")
        noise.check(loader)
        torch.Generator().set_state(tensors["torch_noise"])
        put_(training, state)
    except Exception as problem:  # whatever does not fit: all of it was tried on a copy
        raise CheckpointError(f"{path} does not fit this network ({problem}). {REMEDY}") from problem
    for number, callback in enumerate(training.callbacks):
        if kept[number]:
            callback.load_state_dict(kept[number])
    noise.restore_(loader)
    torch.set_rng_state(tensors["torch_noise"])
    return plain


def follow_(training: Training, processes: Processes, begin: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Let the first process begin where a checkpoint left off, and all others be where it is then.

    Args:
        training: just begun, in each process.
        processes: of the training.
        begin: called in the first process, which alone has the files; it returns plain values.

    Returns:
        These values, in each process.

    Raises:
        EndedElsewhereError: in the others, where the first cannot begin.
        CheckpointError: what it sent does not fit.
    """

    def make() -> tuple[bytes, ...]:
        plain = begin()
        if not training.state.step:
            return b"{}", b""
        state = taken(training)
        tensors = dict(state.tensors)
        for number, callback in enumerate(training.callbacks):
            tensors |= {f"callback/{number}/{k}": v for k, v in callback.state_dict().items()}
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        return json.dumps({**plain, **state.plain}).encode(), safetensors.torch.save(tensors)

    text, content = processes.send(make, parts=2)
    plain: dict[str, Any] = json.loads(text)
    if plain and processes.rank:
        tensors = safetensors.torch.load(content)
        own = {name: value for name, value in tensors.items() if not name.startswith("callback/")}
        training.load_state_dict(TrainingState(own, plain))
        for number, callback in enumerate(training.callbacks):
            if kept := _part(_part(tensors, "callback"), str(number)):
                callback.load_state_dict(kept)
    return plain


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of a part, by their names within it."""
    return {k.removeprefix(f"{name}/"): v for k, v in tensors.items() if k.startswith(f"{name}/")}
