"""What lies in a run's folder, read and checked: figures, settings, draws."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayesprune.errors import RunFolderError
from bayesprune.files import read_json
from bayesprune.report.checks import check_result
from bayesprune.run_shapes import OF_A_SEED, RUN_RECORD, read_checked
from bayesprune.runs import POSTERIOR, RESULT, RUN, check_folder, posterior_files
from bayesprune.schema import check


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
    record = read_checked(own / RUN, RUN_RECORD) if (own / RUN).is_file() else {}
    if not (folder / RESULT).is_file():
        if (folder / RUN).is_file():
            raise RunFolderError(
                f"{folder}: this run has not finished, so that there is nothing to report yet. Continue it:\n"
                f"  bayesprune run --resume --out {shlex.quote(str(folder))}"
            )
        raise RunFolderError(
            f"{folder}: has no {RESULT}, so that it is no run's folder. Give one that 'bayesprune run' named."
        )
    result = read_json(folder / RESULT)
    if "seeds" not in result:  # of one seed: what the run is called is written above
        check(result, OF_A_SEED, folder / RESULT, RunFolderError)
        result = {**_named(record, own), "seeds": [result]}
    check_result(result, folder / RESULT)
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


def _unlike(runs: Sequence[Run]) -> list[str]:
    problems = []
    for run in runs[1:]:
        here, first = run.seeds[0], runs[0].seeds[0]
        if any(here[key] != first[key] for key in ("groups", "dense_architecture")):
            problems.append(
                f"{run.folder}: is of another network than {runs[0].folder} (groups {_sizes(here)}, not "
                f"{_sizes(first)}). Report runs of the same network together, others apart."
            )
        scores = [{key for key in seed if key.startswith("test_")} for seed in (here, first)]
        if scores[0] != scores[1]:
            problems.append(
                f"{run.folder}: was scored by {_words(scores[0])}, {runs[0].folder} by {_words(scores[1])}, "
                "which cannot be put side by side: report them apart."
            )
    files = [file.resolve() for run in runs for file in run.files]
    twice = sorted({str(file.parent) for file in files if files.count(file) > 1})
    if twice:
        problems.append(f"{', '.join(twice)}: given twice. A fit counts once; leave one out.")
    return problems


def _words(names: set[str]) -> str:
    return " and ".join(sorted(names)) or "nothing"


def _sizes(seed: dict[str, Any]) -> str:
    parts = [f"{n} {s}" for n, s in zip(seed["groups"], seed["dense_architecture"], strict=True)]
    return ", ".join(parts[:4]) + (", …" if len(parts) > 4 else "")
