"""Any folder of four IDX files named as MNIST's: MNIST, Fashion-MNIST, EMNIST; images of any size."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from bayesprune.data.dataset import Dataset, Split
from bayesprune.data.idx import read_idx
from bayesprune.errors import DataError
from bayesprune.files import path_of

NAME = re.compile(
    r"(?:(?P<prefix>.+)-)?(?P<part>train|t10k|test)-(?P<kind>images|labels)[-.]idx[13]-ubyte(\.gz)?"
)
"""``train-images-idx3-ubyte``, ``t10k-…``, or EMNIST's ``emnist-letters-test-…``; with or without ``.gz``."""

PARTS = {"train": "train", "t10k": "test", "test": "test"}
WANTED = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte"

Files = dict[tuple[str, str], Path]
"""('train' or 'test', 'images' or 'labels') → file."""


def load_folder(folder: str | Path) -> Dataset:
    """Read a data set from a folder; the classes are inferred from its labels.

    Labels that start at 1 (EMNIST letters: 1 … 26) are shifted to start at 0; the note of the data set says
    so.

    Args:
        folder: where the four files lie, gzip or not. Where it holds several sets, as EMNIST's archive does,
            add the prefix of one as if it were a file: ``emnist/emnist-letters``.

    Returns:
        The data set, named after the folder or the prefix.

    Raises:
        DataError: a file is missing, corrupt or empty, images and labels differ in number, or training and
            test images in size.
    """
    folder = path_of(folder, "load_folder: the folder", DataError)
    name, files = find_files(folder)
    train, test = _read_split(files, "train"), _read_split(files, "test")
    if train.x.shape[1:] != test.x.shape[1:]:
        sizes = [" × ".join(map(str, split.x.shape[2:])) for split in (train, test)]
        raise DataError(
            f"Data folder {folder}: the training images are {sizes[0]}, the test images {sizes[1]}. Resize "
            "them alike, or check that the files belong together."
        )
    shift, classes = _classes(folder, train.y, test.y)
    train, test = Split(train.x, train.y - shift), Split(test.x, test.y - shift)
    note = (
        f"The labels of {name} run from 1 to {classes}; they were shifted to 0 … {classes - 1}."
        if shift
        else ""
    )
    return Dataset(name, train, test, classes, note)


def holds_idx(folder: Path) -> bool:
    """Whether there is a file named as one of MNIST's in a folder."""
    return folder.is_dir() and bool(_sets_in(folder))


def find_files(folder: Path) -> tuple[str, Files]:
    """The four files of the one data set in a folder.

    Args:
        folder: the folder, or ``folder/prefix``.

    Returns:
        Name of the data set, and its files.

    Raises:
        DataError: the folder is missing, lacks a file, or holds several data sets.
    """
    sets = _sets_in(folder) if folder.is_dir() else {}
    if not folder.is_dir() and folder.parent.is_dir():
        sets = {prefix: files for prefix, files in _sets_in(folder.parent).items() if prefix == folder.name}
    if not folder.is_dir() and not sets:
        raise DataError(f"Data folder {folder}: there is no such folder. Check the path.")
    if len(sets) > 1:
        choices = ", ".join(str(folder / prefix) for prefix in sorted(sets) if prefix) or str(folder)
        raise DataError(f"Data folder {folder}: holds several data sets. Name one of them: {choices}.")
    prefix, files = next(iter(sets.items()), ("", {}))
    missing = [
        f"{part} {kind}"
        for part in ("train", "test")
        for kind in ("images", "labels")
        if (part, kind) not in files
    ]
    if missing:
        raise DataError(
            f"Data folder {folder}: no file with the {', '.join(missing)}. Needed are {WANTED}, each with or "
            "without .gz."
        )
    return prefix or folder.resolve().name, files


def _sets_in(folder: Path) -> dict[str, Files]:
    sets: dict[str, Files] = {}
    for path in sorted(
        folder.iterdir(), reverse=True
    ):  # plain files last: where both are there, they win over .gz
        match = NAME.fullmatch(path.name)
        if match and path.is_file():
            key = PARTS[match["part"]], match["kind"]
            sets.setdefault(match["prefix"] or "", {})[key] = path
    return sets


def _read_split(files: Files, part: str) -> Split:
    images_file, labels_file = files[part, "images"], files[part, "labels"]
    images, labels = read_idx(images_file), read_idx(labels_file)
    if images.dim() != 3:
        size = " × ".join(map(str, images.shape))
        raise DataError(
            f"{images_file}: holds {size} values, not rows × height × width. Is it the images' file?"
        )
    if labels.dim() != 1:
        raise DataError(
            f"{labels_file}: has {labels.dim()} dimensions; labels have one. Is it the labels' file?"
        )
    if len(images) != len(labels):
        raise DataError(
            f"{images_file} holds {len(images):,} images but {labels_file.name} {len(labels):,} labels. "
            "Fetch both again: they are not of the same data set, or one is cut short."
        )
    return Split(images.unsqueeze(1).float() / 255, labels.long())


def _classes(folder: Path, train: Tensor, test: Tensor) -> tuple[int, int]:
    shift = 1 if min(int(train.min()), int(test.min())) == 1 else 0
    classes = int(train.max()) + 1 - shift
    unseen = sorted(set(torch.unique(test).tolist()) - set(torch.unique(train).tolist()))
    if unseen:
        raise DataError(
            f"Data folder {folder}: labels {unseen} occur in the test rows but in no training row. "
            "Check that the training and test files belong together."
        )
    present = {label - shift for label in torch.unique(train).tolist()}
    empty = [label + shift for label in range(classes) if label not in present]
    if empty and classes >= 2 and len(present) > 1:
        told = ", ".join(map(str, empty[:5])) + (", …" if len(empty) > 5 else "")
        raise DataError(
            f"Data folder {folder}: the labels run to {classes - 1 + shift}, and {len(empty)} of the "
            f"{classes} classes have no row (labels {told}). Number the classes without gaps; or a byte of "
            "the labels is damaged, and the file is to be fetched again."
        )
    if classes < 2:
        raise DataError(
            f"Data folder {folder}: all labels are {int(train[0])}. Two classes at least are needed."
        )
    return shift, classes
