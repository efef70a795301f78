"""The folder of a run: claimed when it is empty, continued when it is asked for, never overwritten."""

from __future__ import annotations

import contextlib
import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bayesprune.cli.settings import Settings, from_json
from bayesprune.errors import RunFolderError
from bayesprune.files import is_temporary, read_json, sweep, write_json
from bayesprune.lock import LOCK, FolderLock
from bayesprune.run_shapes import RUN_RECORD, SETTINGS
from bayesprune.runs import RESULT as RESULT
from bayesprune.runs import RUN as RUN
from bayesprune.schema import check

FORMAT_VERSION = 1


def check_free(folder: Path) -> None:
    """Make sure that a new run can have a folder; nothing is written.

    Args:
        folder: where the run shall go.

    Raises:
        RunFolderError: it holds another run or other files, or is no folder.
    """
    if folder.is_symlink() and not folder.exists():
        raise RunFolderError(f"{folder}: is a link to nothing. Choose another --out.")
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder}: is a file, not a folder. Choose another --out.")
    if (folder / RUN).exists() or (folder / RESULT).exists():
        raise RunFolderError(
            f"{folder}: holds another run, which is left as it is. To continue it, add --resume; for a new "
            "run choose another --out."
        )
    if folder.is_dir() and any(path.name != LOCK and not _of_a_claim(path) for path in folder.iterdir()):
        raise RunFolderError(f"{folder}: is not empty, and is left as it is. Choose another --out.")


def _of_a_claim(path: Path) -> bool:
    """Whether a file is what is left of a claim whose process was killed while it wrote ``run.json``."""
    return is_temporary(path) and fnmatch.fnmatchcase(path.name, f".{RUN}.*")


def new_folder(program: str, data: str) -> Path:
    """The default folder of a new run: ``runs/<program>-<data>``, with a number added while that is taken.

    Args:
        program: name of the model.
        data: name of the data.

    Returns:
        A folder that does not exist yet.
    """
    base = Path("runs") / re.sub(r"[^\w.-]+", "_", f"{program}-{data}")
    number = 1
    while (folder := _numbered(base, number)).exists():
        number += 1
    return folder


def last_folder(program: str, data: str | None) -> Path:
    """The newest default folder of a program: what ``--resume`` without ``--out`` continues.

    Args:
        program: name of the model.
        data: name of the data, or None for whichever ran last.

    Returns:
        The folder.

    Raises:
        RunFolderError: there is none.
    """
    runs = [path for path in Path("runs").glob(f"*/{RUN}") if _is_of(path, program, data)]
    if not runs:
        what = program + (f" on {data}" if data else "")
        raise RunFolderError(f"Nothing to resume: no run of {what} is in ./runs. Name its folder with --out.")
    return max(runs, key=lambda path: path.stat().st_mtime).parent


def _is_of(record: Path, program: str, data: str | None) -> bool:
    settings: Any = read_json(record).get("settings")
    if list(SETTINGS.problems(settings, "")):
        return False  # damaged, or of something else: not what is looked for
    same_data = data is None or Path(settings.get("data") or "").name == data
    return Path(settings["program"]).stem == program and same_data


def _numbered(base: Path, number: int) -> Path:
    return base if number == 1 else base.with_name(f"{base.name}-{number}")


def begin(folder: Path, settings: Settings, digests: dict[str, str], versions: dict[str, str]) -> None:
    """Claim a folder: write down what is run in it.

    Args:
        folder: the run's folder, made here.
        settings: what was asked for.
        digests: what the files and data were when the run began, by kind.
        versions: of the packages that compute.
    """
    check_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder, RUN)
    record = {
        "format_version": FORMAT_VERSION,
        "settings": settings.to_json(),
        "sha256": digests,
        "versions": versions,
    }
    write_json(folder / RUN, record)


def has_progress(folder: Path) -> bool:
    """Whether anything worth keeping was computed in a run's folder yet."""
    own = (RUN, LOCK)
    return any(
        path.is_file() and not is_temporary(path) and path.name not in own for path in folder.rglob("*")
    )


def give_back(folder: Path) -> None:
    """Take back the claim on a folder where nothing was computed: the command can be given again.

    It runs on the way out of a run that may have failed, so that it raises nothing itself.

    Args:
        folder: of a run that this process began, and holds the lock of.
    """
    with contextlib.suppress(OSError):
        if has_progress(folder):
            return
        sweep(folder)
        (folder / RUN).unlink(missing_ok=True)
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()


@contextlib.contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Work in a folder alone; one that was made for it is removed again if it ends empty.

    Args:
        folder: of a run.

    Raises:
        RunFolderError: another process works there.
    """
    made = not folder.exists()
    try:
        with FolderLock(folder):
            yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # not empty, then
                folder.rmdir()


def read_run(folder: Path) -> tuple[Settings, dict[str, Any]]:
    """What a folder's run was asked to do.

    Args:
        folder: the run's folder.

    Returns:
        Its settings, and the whole record.

    Raises:
        RunFolderError: no run is there, or its record is damaged.
    """
    path = folder / RUN
    if not path.is_file():
        raise RunFolderError(f"{folder}: holds no run to resume. Leave out --resume to start one.")
    record = read_json(path)
    if record.get("format_version") != FORMAT_VERSION:
        raise RunFolderError(
            f"{path}: has format version {record.get('format_version')!r}, this bayesprune writes "
            f"{FORMAT_VERSION}. Continue the run with the version that began it."
        )
    check(record, RUN_RECORD, path, RunFolderError)
    return from_json(record["settings"], path), record


def check_unchanged(folder: Path, record: dict[str, Any], digests: dict[str, str]) -> None:
    """Make sure that a resumed run reads the same files and data as when it began.

    Args:
        folder: the run's folder.
        record: what `read_run` gave.
        digests: SHA-256 of them now, by kind.

    Raises:
        RunFolderError: something changed; it is named.
    """
    saved = record.get("sha256", {})
    changed = [kind for kind, digest in digests.items() if saved.get(kind) != digest]
    if changed:
        raise RunFolderError(
            f"{folder}: cannot be resumed, since the {' and the '.join(changed)} changed after the run "
            "began. Put back what it began with, or start a new run with another --out."
        )


def seed_folder(folder: Path, settings: Settings, seed: int) -> Path:
    """Where a seed's files go: the run's folder itself where there is only one seed.

    Args:
        folder: the run's folder.
        settings: of the run.
        seed: the seed.

    Returns:
        ``folder`` or ``folder/seed-<seed>``.
    """
    return folder if settings.seeds == 1 else folder / f"seed-{seed}"
