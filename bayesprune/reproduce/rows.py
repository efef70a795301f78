"""Where a table's rows come from: folders that are given, or what is found as everywhere."""

from __future__ import annotations

import os
from pathlib import Path

from bayesprune import data
from bayesprune.data import Dataset
from bayesprune.data.cifar import cifar_folder
from bayesprune.data.folder import holds_idx
from bayesprune.errors import DataError

NAMED = {
    "mnist": "MNIST's four IDX files",
    "fashion-mnist": "Fashion-MNIST's four IDX files, which are named as MNIST's",
    "cifar-10": "CIFAR-10's binary version, unpacked from cifar-10-binary.tar.gz",
}
"""Data of tables → what their folder holds."""


def rows_of(name: str, data_dir: Path | str | None) -> Dataset:
    """The rows of a table of one data set.

    Args:
        name: of ``NAMED``.
        data_dir: its folder; without one MNIST is found as everywhere, and others in ``$BAYESPRUNE_DATA``.

    Raises:
        DataError: they are nowhere, or damaged.
    """
    if name == "mnist":
        return data.mnist(data_dir)
    shared = os.environ.get("BAYESPRUNE_DATA")
    folder = Path(data_dir) if data_dir is not None else Path(shared) / name if shared else None
    if folder is None:
        raise DataError(
            f"This table learns {name}, which is not downloaded: give the folder of {NAMED[name]}, "
            f"--data-dir DIR, or set BAYESPRUNE_DATA to a folder that holds it as {name}."
        )
    return data.cifar10(folder) if name == "cifar-10" else data.load_folder(folder)


def places(names: tuple[str, ...], data_dir: Path | str | None) -> tuple[dict[str, Path | None], list[str]]:
    """Where the rows of a table of several data sets lie.

    Args:
        names: of ``NAMED``.
        data_dir: a folder with one of each name; by default ``$BAYESPRUNE_DATA``, and for MNIST wherever it
            is found elsewhere.

    Returns:
        Name → folder, None for MNIST as it is found; and a line for each of the others.

    Raises:
        DataError: a folder that is given and holds none of them.
    """
    shared = os.environ.get("BAYESPRUNE_DATA")
    above = Path(data_dir) if data_dir is not None else Path(shared) if shared else None
    found: dict[str, Path | None] = {}
    missing = []
    for name in names:
        place = above / name if above else None
        if place is not None and place.is_dir():
            found[name] = place
        elif name == "mnist" and data_dir is None:
            found[name] = None
        else:
            where = "--data-dir" if data_dir is not None else "$BAYESPRUNE_DATA"
            missing.append(f"{name} is left out: {where} has no folder of that name, with {NAMED[name]}.")
    if not found:
        itself = (
            above is not None and above.is_dir() and (holds_idx(above) or cifar_folder(above) is not None)
        )
        hint = f" {above} itself holds a data set: put it, or a link to it, below." if itself else ""
        raise DataError(
            f"--data-dir {above}: holds none of the folders {', '.join(names)}, which this table reads.{hint}"
        )
    return found, missing


def read(name: str, place: Path | None) -> Dataset:
    """The rows of one of ``places``.

    Args:
        name: of them.
        place: their folder.

    Raises:
        DataError: they are damaged.
    """
    if name == "mnist":
        return data.mnist(place)
    assert place is not None
    return data.cifar10(place) if name == "cifar-10" else data.load_folder(place)
