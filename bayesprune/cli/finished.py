"""Whether a seed of a run has finished: its figures are there, and every file that was written with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bayesprune.errors import RunFolderError
from bayesprune.export import ARCHITECTURE, TENSORS
from bayesprune.files import read_json, sha256_of, write_json
from bayesprune.run_shapes import OF_A_RUN, OF_A_SEED, check_seeds
from bayesprune.runs import POSTERIOR, RESULT
from bayesprune.schema import check

FILES = "files.json"
"""Checksums of what a seed left, written after all of it."""
HISTORY, GATES = "history.json", "gates.png"
ALWAYS = (TENSORS, ARCHITECTURE, HISTORY, GATES, POSTERIOR)


def seal(folder: Path, more: Iterable[str] = ()) -> None:
    """Write down the checksums of what a seed left.

    Args:
        folder: of the run or seed.
        more: names of files beside those that every seed leaves; those that are there count.
    """
    names = [*ALWAYS, *(name for name in more if (folder / name).is_file())]
    write_json(folder / FILES, {"sha256": {name: sha256_of(folder / name) for name in names}})


def figures_of(folder: Path) -> dict[str, Any] | None:
    """Figures of a finished seed, in its own folder or as the only one of a run; None where there are none.

    Args:
        folder: of the run or seed.
    """
    try:
        figures = read_json(path := folder / RESULT)
        if "seeds" in figures:
            check(figures, OF_A_RUN, path, RunFolderError)
            figures = dict(figures["seeds"][0])
        check(figures, OF_A_SEED, path, RunFolderError)
        check_seeds([figures], path)
    except RunFolderError:
        return None
    return figures


def lost(folder: Path) -> dict[str, str]:
    """What is not as a seed left it.

    Runs of versions that wrote no checksums are asked for the files alone.

    Args:
        folder: of the run or seed.

    Returns:
        Name of a file → what happened to it: 'is missing' or 'was changed'.
    """
    known: dict[str, Any] = dict.fromkeys(ALWAYS)
    with contextlib.suppress(RunFolderError):
        told = read_json(folder / FILES).get("sha256")
        known |= told if isinstance(told, dict) else {}
    if figures_of(folder) is None:
        known = {RESULT: "", **known}
    found = {}
    for name, digest in known.items():
        path = folder / Path(name).name
        if not path.is_file():
            found[name] = "is missing"
        elif digest is not None and sha256_of(path) != digest:
            found[name] = "was changed"
    return found


def put_aside(folder: Path, names: Iterable[str]) -> None:
    """Rename files that are not as they were left, before they are written anew: nothing is lost.

    Args:
        folder: of the run or seed.
        names: of the files.
    """
    for name in names:
        path, number = folder / name, 1
        while (aside := path.with_name(f"{name}.changed-{number}")).exists():
            number += 1
        path.rename(aside)
