"""Data: embedded digits in three forms, MNIST, and folders of IDX files named as MNIST's or of CIFAR-10's."""

from __future__ import annotations

import difflib
from pathlib import Path

from bayesprune.data.cifar import cifar10, cifar_folder
from bayesprune.data.dataset import Dataset, Split
from bayesprune.data.digits import digits
from bayesprune.data.folder import holds_idx, load_folder
from bayesprune.data.idx import read_idx
from bayesprune.data.mnist import mnist
from bayesprune.data.tokens import digit_tokens
from bayesprune.errors import DataError
from bayesprune.files import home_of, path_of

__all__ = [
    "Dataset",
    "Split",
    "cifar10",
    "digit_tokens",
    "digits",
    "load",
    "load_folder",
    "mnist",
    "read_idx",
]

NAMES = ("digits", "digits-32", "digits-tokens", "mnist")


def load(name_or_dir: str | Path, data_dir: str | Path | None = None, progress: bool = True) -> Dataset:
    """Load a data set by its name, or from a folder.

    Args:
        name_or_dir: ``'digits'`` (28 × 28), ``'digits-32'`` (32 × 32), ``'digits-tokens'`` (64 integers),
            ``'mnist'``; or a folder, of IDX files or of CIFAR-10's binary version.
        data_dir: where MNIST lies; see `mnist`.
        progress: show a progress bar should something be downloaded.

    Returns:
        The data set.

    Raises:
        DataError: neither a known name nor a readable folder, or a ``data_dir`` that would not be read.

    Example:
        >>> load("digits").classes
        10
    """
    name = str(path_of(name_or_dir, "data.load: the name or folder", DataError)) if name_or_dir != "" else ""
    if not name:
        raise DataError(f"data.load(''): neither a known name ({', '.join(NAMES)}) nor a folder.")
    if name == "mnist":
        return mnist(data_dir, progress)
    if data_dir is not None:
        raise DataError(
            f"A data folder ({data_dir}) says where MNIST lies, but the data asked for are {name!r}. Ask "
            "for 'mnist', or give the folder itself as the data: --data DIR."
        )
    if name == "digits":
        return digits()
    if name == "digits-32":
        return digits(size=32)
    if name == "digits-tokens":
        return digit_tokens()
    path = home_of(name, DataError)
    if path.name == name and not path.exists():
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DataError(f"Data {name!r}: neither a known name ({', '.join(NAMES)}) nor a folder.{hint}")
    if cifar_folder(path) is None:
        return load_folder(path)
    if holds_idx(path):
        raise DataError(
            f"Data folder {path}: holds IDX files and CIFAR-10's files. Move one of the two elsewhere."
        )
    return cifar10(path)
