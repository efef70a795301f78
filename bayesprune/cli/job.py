"""A run made ready: settings complete, programs loaded and checked, data read, folder claimed."""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bayesprune.cli import folder as folders
from bayesprune.cli.calibration import keep_apart
from bayesprune.cli.processes import check_devices
from bayesprune.cli.settings import Settings, from_json, resumed, versions
from bayesprune.cli.streams import complain
from bayesprune.cli.trust import INFERENCE_FILE, MODEL_FILE, Admitted, Trust
from bayesprune.data import Dataset, load
from bayesprune.errors import ProgramError, RunFolderError, SettingsError
from bayesprune.files import home_of, sha256_of, sweep
from bayesprune.programs import (
    InferenceProgram,
    ModelProgram,
    is_own,
    load_inference,
    load_model,
    run_own,
)

PATHS = ("program", "inference", "data", "data_dir")
"""Settings that may be places on the disk."""


@dataclass(frozen=True)
class Job:
    """A run that is ready to begin or to continue.

    Attributes:
        settings: what is computed, every default filled in.
        model: the model's program.
        inference: the inference's program.
        data: rows; those that are kept for calibration are not among the training rows.
        folder: where it goes, claimed.
        device: 'cpu' or 'cuda'.
        quiet: print nothing.
        digests: SHA-256 of programs and data, by kind.
    """

    settings: Settings
    model: ModelProgram
    inference: InferenceProgram
    data: Dataset
    folder: Path
    device: str
    quiet: bool
    digests: dict[str, str]

    def say(self, text: str) -> None:
        """Tell the user something on the way, on stderr."""
        if not self.quiet:
            complain(text)


def begin(asked: Settings, out: Path | None, quiet: bool, stack: ExitStack) -> Job:
    """Make a new run ready; its folder is claimed last, when everything else is in order.

    Args:
        asked: what the command line says.
        out: the run's folder, or None for a default one.
        quiet: print nothing.
        stack: holds the folder's lock, and gives the folder back if nothing comes of the run.

    Returns:
        The job.

    Raises:
        BayespruneError: a program, the data, a setting or the folder cannot be used; nothing was written.
    """
    _check_names(asked, out)
    if out is not None:
        folders.check_free(out)
    settings, model, inference, data = _load(asked, quiet)
    device = _device(settings)
    folder = out or folders.new_folder(model.name, data.name)
    stack.enter_context(folders.sole_use(folder))
    digests = _digests(model, inference, data)
    folders.begin(folder, settings, digests, versions())
    stack.callback(folders.give_back, folder)
    left = keep_apart(data, settings.calibration)[0]
    return _noted(Job(settings, model, inference, left, folder, device, quiet, digests))


def resume(
    asked: Settings, given: set[str], out: Path | None, quiet: bool, trust: Trust, stack: ExitStack
) -> Job:
    """Make a run ready to continue, with the settings that it began with.

    Args:
        asked: what the command line says.
        given: names of the settings that it says explicitly; they must be the run's.
        out: the run's folder, or None for the newest of the program.
        quiet: print nothing.
        trust: programs of the user's own that the command names; no other is executed.
        stack: holds the folder's lock.

    Returns:
        The job.

    Raises:
        BayespruneError: there is no such run, or its settings, programs or data are not those of the
            beginning.
    """
    data_name = Path(asked.data).name if asked.data else None
    folder = out or folders.last_folder(Path(asked.program).stem, data_name)
    saved, record = folders.read_run(folder)
    stack.enter_context(folders.sole_use(folder))
    admitted = Admitted(trust, folder, record)
    settings, model, inference, data = _load(resumed(saved, asked, given, folder), quiet, admitted)
    digests = _digests(model, inference, data)
    folders.check_unchanged(folder, record, digests)
    sweep(folder)
    left = keep_apart(data, settings.calibration)[0]
    job = _noted(Job(settings, model, inference, left, folder, _device(settings), quiet, digests))
    began = record.get("versions", {})
    changed = [
        f"{name} {began.get(name)} → {now}" for name, now in versions().items() if began.get(name) != now
    ]
    if changed:
        job.say(f"Note: begun with other versions ({', '.join(changed)}); the last bits may differ.")
    return job


def to_others(job: Job) -> dict[str, Any]:
    """What the other processes of a run have to know of it, as plain values.

    Args:
        job: of the first process.
    """
    paths = {"model": job.model, "inference": job.inference}
    return {
        "settings": job.settings.to_json(),
        "folder": str(job.folder),
        "digests": job.digests,
        **{kind: str(program.path) if program.own else program.name for kind, program in paths.items()},
    }


def follow(told: dict[str, Any]) -> Job:
    """Make a run ready in a process that is not its first: nothing is claimed, written or printed.

    Args:
        told: what ``to_others`` gave. Programs that differ from those of the first process do not run.

    Returns:
        The job.

    Raises:
        BayespruneError: a program or the data cannot be used here.
    """
    settings, digests = from_json(told["settings"], Path(told["folder"])), told["digests"]
    model = load_model(told["model"], digests[MODEL_FILE])
    inference = load_inference(told["inference"], digests[INFERENCE_FILE])
    data = _read_data(settings, model, quiet=True)
    found = _digests(model, inference, data)
    left = keep_apart(data, settings.calibration)[0]
    return Job(settings, model, inference, left, Path(told["folder"]), _device(settings), True, found)


def data_of(folder: Path, trust: Trust) -> tuple[Settings, Dataset]:
    """The data of a run, read again as it began: with the rows that it kept apart.

    Args:
        folder: the run's folder.
        trust: programs that the command names: where the data come from a program of the run's own, it is
            executed only if it is among them.

    Returns:
        Its settings, and all of its data.

    Raises:
        BayespruneError: it is no run's folder, its data changed since, or its program is not trusted.
    """
    settings, record = folders.read_run(folder)
    if settings.data is not None:
        data = load(settings.data, settings.data_dir)
    else:
        program = Admitted(trust, folder, record).program(settings.program, MODEL_FILE)
        data = _read_data(settings, load_model(*program), quiet=True)
    folders.check_unchanged(folder, record, {"data": _digest_of(data)})
    return settings, data


def absolute(asked: Settings) -> Settings:
    """Settings whose paths hold from wherever a run is resumed."""

    def resolve(value: str | None, is_path: bool) -> str | None:
        return str(home_of(value, RunFolderError).resolve()) if value and is_path else value

    return replace(
        asked,
        program=resolve(asked.program, _is_file(asked.program)) or "",
        inference=resolve(asked.inference, _is_file(asked.inference)),
        data=resolve(asked.data, _is_file(asked.data) or Path(asked.data or "").is_dir()),
        data_dir=resolve(asked.data_dir, True),
    )


def _check_names(asked: Settings, out: Path | None) -> None:
    """Names that cannot be written into a report, or read again from JSON, are found before the training."""
    for name, path in {"--out": out, **{name: getattr(asked, name) for name in PATHS}}.items():
        try:
            str(path or "").encode()
        except UnicodeEncodeError:
            raise RunFolderError(
                f"{name} {os.fsencode(str(path))!r}: is no UTF-8, in which a run's files name what it read. "
                "Rename it, or choose another."
            ) from None


def _is_file(value: str | None) -> bool:
    return value is not None and is_own(value)


def _load(
    asked: Settings, quiet: bool, admitted: Admitted | None = None
) -> tuple[Settings, ModelProgram, InferenceProgram, Dataset]:
    """Programs and data, and the settings with every default filled in.

    Args:
        asked: of the command line; or of a run's record, and then ``admitted`` says what may be executed.
        quiet: print nothing.
        admitted: None where all that ``asked`` names was named by the user.
    """
    model = load_model(*(admitted.program(asked.program, MODEL_FILE) if admitted else (asked.program, None)))
    settings = replace(
        asked,
        inference=asked.inference or model.inference,
        data=asked.data or (None if model.data else "digits"),
    )
    name = str(settings.inference)
    inference = load_inference(
        *(admitted.program(name, INFERENCE_FILE, model.inference) if admitted else (name, None))
    )
    data = _read_data(settings, model, quiet)
    settings = replace(
        settings,
        epochs=asked.epochs or model.epochs_on(data.name),
        batch_size=asked.batch_size or model.batch_size_on(data.name),
    )
    return settings, model, inference, data


def _read_data(settings: Settings, model: ModelProgram, quiet: bool) -> Dataset:
    if settings.data is not None or model.data is None:
        return load(settings.data or "digits", settings.data_dir, progress=not quiet)
    data = run_own(model, "data", model.data)
    if not isinstance(data, Dataset):
        raise ProgramError(
            f"{model.path}: data() returned {type(data).__name__}, not a bayesprune.data.Dataset. Change it."
        )
    return data


def _noted(job: Job) -> Job:
    if job.data.note:
        job.say(f"Note: {job.data.note}")
    return job


def _digests(model: ModelProgram, inference: InferenceProgram, data: Dataset) -> dict[str, str]:
    return {
        MODEL_FILE: sha256_of(model.path),
        INFERENCE_FILE: sha256_of(inference.path),
        "data": _digest_of(data),
    }


def _digest_of(data: Dataset) -> str:
    rows = hashlib.sha256()
    for tensor in (data.train.x, data.train.y, data.test.x, data.test.y):
        rows.update(tensor.contiguous().numpy().data)
    return rows.hexdigest()


def _device(settings: Settings) -> str:
    if settings.device == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        check_devices()
        return "cuda"
    if settings.device == "cuda":
        raise SettingsError(
            f"--device cuda: this PyTorch ({torch.__version__}) finds no CUDA device. Use --device cpu, or "
            "install a PyTorch built for your GPU (pytorch.org)."
        )
    return "cpu"
