"""What lies in a run's folder, read and checked: figures, settings, draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayesprune.errors import RunFolderError
from bayesprune.files import read_json
from bayesprune.runs import POSTERIOR, RESULT, RUN, check_folder, posterior_files

Number = int | float
OF_A_RUN: Mapping[str, Any] = {"program": str, "inference": str, "data": str, "epochs": int, "seeds": list}
OF_A_SEED: Mapping[str, Any] = {
    "seed": int,
    "dense_parameters": Number,
    "dense_macs": Number,
    "parameters_kept": Number,
    "parameters_kept_percent": Number,
    "macs_kept": Number,
    "macs_kept_percent": Number,
    "groups": list,
    "dense_architecture": list,
    "architecture": list,
    "undecided_gates": Number,
    "rounded_gates": Number,
    "seconds": Number,
}


@dataclass(frozen=True)
class Run:
    """One finished run, or one of its seeds.

    Attributes:
        folder: as it was given.
        result: content of ``result.json``; ``seeds`` has the figures of each seed that is reported.
        record: content of ``run.json``: settings, versions, checksums; empty where it is missing.
        files: the draws of each seed, in order.
    """

    folder: Path
    result: dict[str, Any]
    record: dict[str, Any]
    files: tuple[Path, ...]

    @property
    def seeds(self) -> list[dict[str, Any]]:
        """Figures of each seed."""
        return list(self.result["seeds"])

    @property
    def settings(self) -> dict[str, Any]:
        """What the run was asked to do."""
        return dict(self.record.get("settings", {}))


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read the folders of finished runs of one network.

    Args:
        folders: of runs, or of seeds.

    Returns:
        The runs, in order.

    Raises:
        RunFolderError: a folder is none of a finished run, was changed, is given twice, or is of another
            network than the first; all that is wrong is named.
    """
    runs, problems = [], []
    for folder in map(Path, folders):
        try:
            runs.append(read_run(folder))
        except RunFolderError as problem:
            problems.append(str(problem))
    problems += _unlike(runs)
    if problems or not runs:
        raise RunFolderError("\n".join(problems) or "There is no run to report. Name the folder of one.")
    return runs


def read_run(folder: Path) -> Run:
    """Read the folder of a finished run, or of one of its seeds.

    Raises:
        RunFolderError: it is not there, the run has not finished, or a file was changed.
    """
    check_folder(folder)
    own = folder if (folder / RUN).is_file() else folder.resolve().parent
    record = read_json(own / RUN) if (own / RUN).is_file() else {}
    if not (folder / RESULT).is_file():
        if (folder / RUN).is_file():
            raise RunFolderError(
                f"{folder}: this run has not finished, so that there is nothing to report yet. Continue it:\n"
                f"  bayesprune run --resume --out {folder}"
            )
        raise RunFolderError(
            f"{folder}: has no {RESULT}, so that it is no run's folder. Give one that 'bayesprune run' named."
        )
    result = read_json(folder / RESULT)
    if "seeds" not in result:  # of one seed: what the run is called is written above
        result = {**_named(record, own), "seeds": [result]}
    _check(result, folder / RESULT)
    files = tuple(posterior_files(folder))
    if len(files) != len(result["seeds"]):
        raise RunFolderError(
            f"{folder}: has {len(files)} files {POSTERIOR} and figures of {len(result['seeds'])} seeds in "
            f"{RESULT}. A file is missing or was added; run the program again."
        )
    return Run(folder, result, record, files)


def _named(record: dict[str, Any], own: Path) -> dict[str, Any]:
    """What a run is called, for a seed's figures, from the record of the run around it."""
    above = read_json(own / RESULT) if (own / RESULT).is_file() else {}
    asked = record.get("settings", {})
    return {
        "program": Path(str(asked.get("program", "unknown program"))).stem,
        "inference": Path(str(asked.get("inference", "unknown inference"))).stem,
        "data": Path(str(asked.get("data") or "its own data")).name,
        **{key: asked[key] for key in ("epochs", "batch_size", "price", "budget") if key in asked},
        "versions": record.get("versions", {}),
        **{key: value for key, value in above.items() if key in ("program", "inference", "data", "versions")},
    }


def _check(result: dict[str, Any], path: Path) -> None:
    problems = _wrong(result, OF_A_RUN, "")
    seeds = result.get("seeds")
    if isinstance(seeds, list):
        problems += [] if seeds else ["'seeds' is empty"]
        for number, seed in enumerate(seeds):
            place = f"seeds[{number}]."
            problems += (
                _wrong(seed, OF_A_SEED, place) if isinstance(seed, dict) else [f"{place[:-1]} is no object"]
            )
    if not problems:
        lengths = {len(s[k]) for s in seeds or () for k in ("groups", "dense_architecture", "architecture")}
        problems += [] if len(lengths) == 1 else ["lists of groups have different lengths"]
    if problems:
        raise RunFolderError(
            f"{path}: is no result of 'bayesprune run', or was changed: {'; '.join(problems)}. Give the folder "
            "of a finished run, or run the program again."
        )


def _wrong(values: Mapping[str, Any], kinds: Mapping[str, Any], place: str) -> list[str]:
    missing = [f"{place}{key} is missing" for key in kinds if key not in values]
    return missing + [
        f"{place}{key} is {values[key]!r:.40}"
        for key, kind in kinds.items()
        if key in values and (not isinstance(values[key], kind) or isinstance(values[key], bool))
    ]


def _unlike(runs: Sequence[Run]) -> list[str]:
    problems = []
    for run in runs[1:]:
        here, first = run.seeds[0], runs[0].seeds[0]
        if any(here[key] != first[key] for key in ("groups", "dense_architecture")):
            problems.append(
                f"{run.folder}: is of another network than {runs[0].folder} (groups {_sizes(here)}, not "
                f"{_sizes(first)}). Report runs of the same network together, others apart."
            )
    files = [file.resolve() for run in runs for file in run.files]
    twice = sorted({str(file.parent) for file in files if files.count(file) > 1})
    if twice:
        problems.append(f"{', '.join(twice)}: given twice. A fit counts once; leave one out.")
    return problems


def _sizes(seed: dict[str, Any]) -> str:
    parts = [f"{n} {s}" for n, s in zip(seed["groups"], seed["dense_architecture"], strict=True)]
    return ", ".join(parts[:4]) + (", …" if len(parts) > 4 else "")
