"""Checkpoints: everything a training needs to go on to the bit-equal result, in safetensors; no pickle."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from bayesprune.errors import CheckpointError
from bayesprune.files import write_atomically
from bayesprune.svi.result import Epoch
from bayesprune.svi.run import Run
from bayesprune.svi.step import State

FORMAT = 1
KEEP = 2


def save(run: Run, folder: Path, settings: dict[str, Any]) -> Path:
    """Write a checkpoint for the epochs finished so far; the last two are kept.

    Args:
        run: the training.
        folder: where checkpoints lie; made if missing.
        settings: what must be equal for a run to go on from here.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    epochs = [{k: v for k, v in asdict(e).items() if k != "inclusion"} for e in run.history]
    scalars = {
        "format": FORMAT,
        "settings": settings,
        "step": run.state.step,
        "prior_weight": run.state.prior_weight,
        "decided": run.state.decided,
        "decided_at": run.decided_at,
        "averaged": run.averaged,
        "rounded": run.rounded,
        "seconds": run.seconds,
        "epochs": epochs,
    }
    path = folder / f"epoch-{len(run.history):04d}.safetensors"
    payload = safetensors.torch.save(_tensors(run), metadata={"bayesprune": json.dumps(scalars)})
    write_atomically(path, payload)
    for old in sorted(folder.glob("epoch-*.safetensors"))[:-KEEP]:
        old.unlink()
    return path


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
    return {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}


def _parameters(optimiser: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [p for group in optimiser.param_groups for p in group["params"]]


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a folder, if there is one."""
    found = sorted(folder.glob("epoch-*.safetensors"))
    return found[-1] if found else None


def restore_(run: Run, path: Path, settings: dict[str, Any]) -> None:
    """Bring a fresh run to where a checkpoint left off.

    Args:
        run: just begun, on the same model, data and settings.
        path: the checkpoint.
        settings: of this run; they must be the checkpoint's.

    Raises:
        CheckpointError: the file is truncated or corrupt, or belongs to another run; the run is unusable
            then.
    """
    tensors, scalars = _read(path)
    differs = [k for k in settings if scalars["settings"].get(k) != settings[k]]
    if differs:
        was = ", ".join(f"{k}={scalars['settings'].get(k)!r} (now {settings[k]!r})" for k in differs)
        raise CheckpointError(f"{path} was written with other settings: {was}. Use those, or another folder.")
    try:
        _restore_(run, tensors, scalars)
    except (KeyError, RuntimeError, ValueError, IndexError) as problem:
        raise CheckpointError(f"{path} does not fit this network ({problem}). {_REMEDY}") from problem


_REMEDY = "Delete the file to go on from the checkpoint before it, or start again in another folder."


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            scalars = dict(json.loads((file.metadata() or {})["bayesprune"]))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except Exception as problem:  # the format's own errors have no common base
        raise CheckpointError(
            f"{path} cannot be read: truncated or not a checkpoint ({problem}). {_REMEDY}"
        ) from problem
    if scalars.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {scalars.get('format')}; this version reads {FORMAT}. {_REMEDY}"
        )
    return tensors, scalars


def _restore_(run: Run, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    run.gated.remove_(~tensors["model/alive"].to(run.gated.alive.device))
    if scalars["decided"]:
        run.enter_compact_()
    model = {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}
    run.gated.load_state_dict(model)
    for number, parameter in enumerate(_parameters(run.engine.optimiser)):
        prefix = f"adam/{number}/"
        found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if found:
            run.engine.optimiser.state[parameter] = {k: v.to(parameter.device) for k, v in found.items()}
    device = run.state.velocity.device
    run.average = {
        k.removeprefix("average/"): v.to(device) for k, v in tensors.items() if k.startswith("average/")
    }
    run.state = State(
        step=scalars["step"],
        velocity=tensors["velocity"].to(device),
        prior_weight=scalars["prior_weight"],
        moving=run.schedule.warmup <= scalars["step"],
        decided=scalars["decided"],
    )
    run.decided_at, run.rounded, run.averaged = scalars["decided_at"], scalars["rounded"], scalars["averaged"]
    run.seconds = scalars["seconds"]
    run.history = [
        Epoch(**e, inclusion=row) for e, row in zip(scalars["epochs"], tensors["history"], strict=True)
    ]
    run.engine.generator.set_state(tensors["gate_noise"])
    torch.set_rng_state(tensors["torch_noise"])
    run.engine.forget()
