"""Checkpoints: everything a training needs to go on to the bit-equal result, one training a folder."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from bayesprune.errors import CheckpointError
from bayesprune.files import sweep, write_atomically
from bayesprune.lock import FolderLock
from bayesprune.svi.checkpoint_file import FORMAT, REMEDY, pack, run_of, unpack
from bayesprune.svi.loader_noise import LoaderNoise
from bayesprune.svi.result import Epoch
from bayesprune.svi.run import Run
from bayesprune.svi.step import State

KEEP = 2
FILES = "epoch-*.safetensors"
_NAME = re.compile(r"epoch-(\d{4,12})\.safetensors")
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps of a parameter."""


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

    def begin_(self, run: Run, resume: bool) -> None:
        """Bring a fresh training to where its newest checkpoint left off, if it has one.

        Args:
            run: just begun.
            resume: whether it may have one.

        Raises:
            CheckpointError: it has one that it may not have, or that cannot be gone on from.
        """
        if not resume:
            check_unused(self.folder)
        elif newest := newest_of_one(self.folder):
            self.run_id = restore_(run, newest, self.settings, self.noise)
            _thin(self.folder)  # whoever was killed between writing a checkpoint and deleting an old one

    def save(self, run: Run) -> Path:
        """Write a checkpoint of the epochs finished so far."""
        return save(run, self.folder, self.settings, self.run_id, self.noise)


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


def save(run: Run, folder: Path, settings: dict[str, Any], run_id: str, noise: LoaderNoise) -> Path:
    """Write a checkpoint for the epochs finished so far; the last two are kept.

    Args:
        run: the training.
        folder: where checkpoints lie; made if missing.
        settings: what must be equal for a run to go on from here.
        run_id: of the training.
        noise: of the data's loader.

    Returns:
        The file.

    Raises:
        OSError: it cannot be written; the checkpoints before it are left.
    """
    plain = {
        "format": FORMAT,
        "run": run_id,
        "settings": settings,
        "step": run.state.step,
        "prior_weight": run.state.prior_weight,
        "decided": run.state.decided,
        "decided_at": run.decided_at,
        "averaged": run.averaged,
        "rounded": run.rounded,
        "seconds": run.seconds,
        "epochs": [{k: v for k, v in asdict(e).items() if k != "inclusion"} for e in run.history],
    }
    tensors = {**_tensors(run), **{f"loader/{name}": state for name, state in noise.states().items()}}
    path = folder / f"epoch-{len(run.history):04d}.safetensors"
    write_atomically(path, pack({k: _plain(v) for k, v in tensors.items()}, plain))
    _thin(folder)
    return path


def _thin(folder: Path) -> None:
    for _, old in numbered(folder)[:-KEEP]:
        old.unlink(missing_ok=True)


def restore_(run: Run, path: Path, settings: dict[str, Any], noise: LoaderNoise) -> str:
    """Bring a fresh run to where a checkpoint left off.

    Args:
        run: just begun, on the same model, data and settings.
        path: the checkpoint.
        settings: of this run; they must be the checkpoint's.
        noise: of the data's loader, which goes on where it was.

    Returns:
        The training's id.

    Raises:
        CheckpointError: the file is truncated, damaged, renamed, or belongs to another run; nothing was
            changed then, neither in the run nor in PyTorch's random numbers.
    """
    tensors, plain = unpack(path)
    was = plain["settings"]
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
    fresh = run.afresh()
    try:
        _restore_(fresh, tensors, plain)
        noise.check({k.removeprefix("loader/"): v for k, v in tensors.items() if k.startswith("loader/")})
        torch.Generator().set_state(tensors["torch_noise"])
    except Exception as problem:  # whatever does not fit: all of it happened to a copy
        raise CheckpointError(f"{path} does not fit this network ({problem}). {REMEDY}") from problem
    run.become_(fresh)
    noise.restore_({k.removeprefix("loader/"): v for k, v in tensors.items() if k.startswith("loader/")})
    torch.set_rng_state(tensors["torch_noise"])
    return str(plain["run"])


def _tensors(run: Run) -> dict[str, Tensor]:
    tensors = {f"model/{k}": v for k, v in run.gated.state_dict().items()}
    for number, parameter in enumerate(_parameters(run.engine.optimiser)):
        for key, value in run.engine.optimiser.state.get(parameter, {}).items():
            tensors[f"adam/{number}/{key}"] = value
    tensors |= {f"average/{k}": v for k, v in run.average.items()}
    tensors["velocity"] = run.state.velocity
    tensors["gate_noise"] = run.engine.generator.get_state()
    tensors["torch_noise"] = torch.get_rng_state()
    tensors["history"] = torch.stack([e.inclusion for e in run.history]) if run.history else torch.empty(0)
    return tensors


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()


def _parameters(optimiser: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [p for group in optimiser.param_groups for p in group["params"]]


def _restore_(run: Run, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "adam": {}, "average": {}, "loader": {}, "": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        parts[kind if rest else ""][rest or name] = tensor
    single, epochs = parts[""], plain["epochs"]
    _check_names(single, ("velocity", "gate_noise", "torch_noise", "history"))
    if plain["step"] != len(epochs) * run.batches.steps:
        raise ValueError(f"step {plain['step']} is not the end of epoch {len(epochs)}")
    run.gated.remove_(~parts["model"]["alive"].to(run.gated.alive.device))
    if plain["decided"]:
        run.enter_compact_()
    _load_model_(run, parts["model"])
    _load_moments_(run, parts["adam"])
    named = dict(run.gated.network.named_parameters())
    _check_names(parts["average"], named if plain["averaged"] else ())
    device, velocity = run.state.velocity.device, run.state.velocity
    run.average = {k: _alike(v, named[k], k).to(device) for k, v in parts["average"].items()}
    run.state = State(
        step=plain["step"],
        velocity=_alike(single["velocity"], velocity, "velocity").to(device),
        prior_weight=plain["prior_weight"],
        moving=run.schedule.warmup <= plain["step"],
        decided=plain["decided"],
    )
    run.decided_at, run.rounded, run.averaged = plain["decided_at"], plain["rounded"], plain["averaged"]
    run.seconds = plain["seconds"]
    inclusion = _alike(single["history"], velocity.new_zeros(len(epochs), len(velocity)), "history")
    run.history = [Epoch(**e, inclusion=row.clone()) for e, row in zip(epochs, inclusion, strict=True)]
    run.engine.generator.set_state(single["gate_noise"])
    run.engine.forget()


def _load_model_(run: Run, saved: Mapping[str, Tensor]) -> None:
    own = run.gated.state_dict()
    _check_names(saved, own)
    trained = {name for name, _ in run.gated.named_parameters()}
    for name, tensor in saved.items():  # loading would convert other types without a word
        _alike(tensor, own[name], name, finite=name in trained)
    if not torch.equal(saved["alive"], own["alive"].cpu()):
        raise ValueError("units are alive that nothing reads")
    run.gated.load_state_dict(dict(saved))


def _load_moments_(run: Run, saved: Mapping[str, Tensor]) -> None:
    known: set[str] = set()
    for number, parameter in enumerate(_parameters(run.engine.optimiser)):
        names = {key: f"{number}/{key}" for key in MOMENTS}
        if not saved.keys() & set(names.values()):
            continue  # it has had no gradient yet
        known |= set(names.values())
        run.engine.optimiser.state[parameter] = {
            key: _alike(saved[name], saved[name].new_zeros(()) if key == "step" else parameter, name).to(
                parameter.device
            )
            for key, name in names.items()
        }
    _check_names(saved, known)


def _check_names(found: Mapping[str, Any], expected: Any) -> None:
    wrong = sorted(set(found) ^ set(expected))
    if wrong:
        raise KeyError(f"missing or unknown: {', '.join(wrong[:5])}")


def _alike(tensor: Tensor, like: Tensor, name: str, finite: bool = True) -> Tensor:
    """A tensor of the type and shape of another, without NaN or infinity."""
    if tensor.dtype != like.dtype or tensor.shape != like.shape:
        raise ValueError(
            f"{name} is {tensor.dtype} {list(tensor.shape)}, not {like.dtype} {list(like.shape)}"
        )
    if finite and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} holds NaN or infinity: the training had diverged")
    return tensor
