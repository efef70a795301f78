"""What a file of draws holds before anything of it is read: HDF5 can name other files, and sizes out of hand.

A file that was received may say that its numbers lie in another file of this disk, bring filters that are
code, or announce gigabytes in a few kilobytes. None of that is followed: everything must lie in the file
itself, in one level of groups, and be no larger than such files are.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bayesprune.errors import PosteriorError

SMALL = 64 * 2**20
MOST_COMPRESSED = 100
"""Bytes in memory for each in the file, beyond 64 MiB: draws of decided gates, the best case, come to 30."""
A_STRING = 256
OWN_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
"""Others are plug-ins, found on the disk and run."""


def check_stored(path: Path) -> list[str]:
    """Look through a file of draws without reading its numbers.

    Args:
        path: the file.

    Returns:
        Names of its groups.

    Raises:
        PosteriorError: it refers to what lies elsewhere, needs a filter that is no part of HDF5, has groups
            in groups, or holds more than can be.
        OSError: it is no HDF5 file.
    """
    total = 0
    with h5py.File(path, "r") as file:
        names = _members(file, "", path)
        for name in names:
            if not isinstance(file[name], h5py.Group):
                raise _refused(path, name, "lies outside of a group")
            for member in _members(file[name], name, path):
                total += _size(file[name][member], f"{name}/{member}", path)
        most = SMALL + MOST_COMPRESSED * os.path.getsize(path)
    if total > most:
        raise PosteriorError(
            f"{path}: announces {total / 2**20:,.0f} MiB of numbers, in a file for which {most / 2**20:,.0f} "
            "would be many. It was changed, or is no file of draws; run the program again."
        )
    return names


def _members(group: Any, place: str, path: Path) -> list[str]:
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise _refused(path, f"{place}/{name}", "is a link to something else")
    return list(group)


def _size(dataset: Any, name: str, path: Path) -> int:
    """Bytes that an array takes in memory."""
    if not isinstance(dataset, h5py.Dataset):
        raise _refused(path, name, "is no array")
    if dataset.is_virtual or dataset.external:
        raise _refused(path, name, "keeps its numbers in another file")
    properties = dataset.id.get_create_plist()
    filters = {properties.get_filter(number)[0] for number in range(properties.get_nfilters())}
    if not filters <= OWN_FILTERS:
        raise _refused(path, name, "needs a filter that is no part of HDF5")
    if dataset.dtype.kind not in "biuf" and h5py.check_string_dtype(dataset.dtype) is None:
        raise _refused(path, name, f"holds {dataset.dtype}, neither numbers nor text")
    width = A_STRING if dataset.dtype.kind == "O" else dataset.dtype.itemsize
    return int(np.prod([int(n) for n in dataset.shape or ()], dtype=object)) * width


def _refused(path: Path, name: str, why: str) -> PosteriorError:
    return PosteriorError(
        f"{path}: {name!r} {why}, which bayesprune writes in no file. It was changed, and is not read; run "
        "the program again."
    )
