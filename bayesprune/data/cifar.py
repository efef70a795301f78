"""CIFAR-10 in its binary version: files of records, each a label and a 32 × 32 picture in three colours.

    label (1 byte, 0 … 9) | red (1,024 bytes, row by row) | green (1,024) | blue (1,024)

Source: A. Krizhevsky (2009), Learning multiple layers of features from tiny images; the format is that of
``cifar-10-binary.tar.gz``.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from bayesprune.data.dataset import Dataset, Split
from bayesprune.data.idx import opened, read_most
from bayesprune.errors import DataError
from bayesprune.files import path_of

CLASSES, SIDE = 10, 32
RECORD = 1 + 3 * SIDE**2
BATCHES = 5
MOST_RECORDS = 100_000
UNPACKED = "cifar-10-batches-bin"
"""The folder in the published archive."""

TRAIN = re.compile(r"data_batch_([1-9]\d*)\.bin")
MOST_DIGITS = 3
TEST = "test_batch.bin"
PICKLED = re.compile(r"data_batch_\d+|test_batch")
REMEDY = "Unpack it again from cifar-10-binary.tar.gz, the binary version of CIFAR-10."


def cifar_folder(folder: str | Path) -> Path | None:
    """Where CIFAR-10's files lie: in a folder itself, or in the one that its archive unpacks to.

    Args:
        folder: to look in.

    Returns:
        The folder with the files, or None where there are no such files.
    """
    for place in (Path(folder), Path(folder) / UNPACKED):
        if place.is_dir() and any(
            TRAIN.fullmatch(path.name) or path.name == TEST or PICKLED.fullmatch(path.name)
            for path in place.iterdir()
        ):
            return place
    return None


def cifar10(folder: str | Path) -> Dataset:
    """Read CIFAR-10 from the folder of its binary version; nothing is downloaded.

    Every channel c of every picture becomes (x/255 − mean_c) / std_c, with the mean and standard deviation of
    the *training* rows; the data set's note gives both, for whoever feeds the network later.

    Args:
        folder: with ``data_batch_1.bin`` and its successors, and ``test_batch.bin``; or the folder above it.
            The published set has five training batches; with fewer of them the note says so.

    Returns:
        Rows (rows, 3, 32, 32), float32, of 10 classes.

    Raises:
        DataError: a file is missing, empty or cut short, or holds a label above 9; or these are the pickled
            files of the Python version, which are never read.
    """
    place = cifar_folder(path_of(folder, "cifar10: the folder", DataError))
    if place is None:
        raise DataError(f"Data folder {folder}: holds none of CIFAR-10's files. {REMEDY}")
    files = _training_files(place)
    parts = [_records(file) for file in files]
    images, labels = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
    test_images, test_labels = _records(place / TEST)
    mean, std = _moments(images)
    note = (
        f"CIFAR-10's channels are normalised by the training rows' means {_list(mean)} and standard "
        f"deviations {_list(std)} (of values in [0, 1])."
    )
    if len(files) < BATCHES:
        note += f" Only {len(files)} of its {BATCHES} training batches are there: {len(labels):,} rows."
    train = Split(_normalised(images, mean, std), labels)
    return Dataset("cifar10", train, Split(_normalised(test_images, mean, std), test_labels), CLASSES, note)


def _training_files(place: Path) -> list[Path]:
    """``data_batch_1.bin``, …, in order and without a gap; the test batch is there too."""
    names = [match[1] for path in place.iterdir() if (match := TRAIN.fullmatch(path.name))]
    strange = sorted(name for name in names if len(name) > MOST_DIGITS)
    if strange:
        raise DataError(
            f"Data folder {place}: data_batch_{strange[0]:.20}.bin has a number that no batch has. "
            "Take the file away."
        )
    numbers = sorted(map(int, names))
    if not numbers and any(PICKLED.fullmatch(path.name) for path in place.iterdir()):
        raise DataError(
            f"Data folder {place}: holds the Python version of CIFAR-10, which is pickled; loading a pickle "
            "can run any code, so none is ever read. Unpack cifar-10-binary.tar.gz instead."
        )
    wanted = range(1, max(numbers, default=BATCHES) + 1)
    missing = [f"data_batch_{number}.bin" for number in wanted if number not in numbers]
    missing += [] if (place / TEST).is_file() else [TEST]
    if missing:
        raise DataError(f"Data folder {place}: lacks {', '.join(missing)}. {REMEDY}")
    return [place / f"data_batch_{number}.bin" for number in numbers]


def _records(path: Path) -> tuple[Tensor, Tensor]:
    """(rows, 3, 32, 32) uint8 and (rows,) int64 of one file."""
    with opened(path) as stream:
        content = read_most(stream, MOST_RECORDS * RECORD + 1)
    if len(content) > MOST_RECORDS * RECORD:
        raise DataError(
            f"{path}: holds more than {MOST_RECORDS:,} records, ten times those of a batch. {REMEDY}"
        )
    if not content:
        raise DataError(f"{path}: the file is empty. {REMEDY}")
    if len(content) % RECORD:
        whole, rest = divmod(len(content), RECORD)
        raise DataError(
            f"{path}: has {len(content):,} bytes, which is no multiple of the {RECORD:,} of a record (a "
            f"label and 3 × 32 × 32 values): {whole:,} records and {rest:,} bytes. {REMEDY}"
        )
    table = torch.frombuffer(content, dtype=torch.uint8).reshape(-1, RECORD)
    labels = table[:, 0].long()
    if int(labels.max()) >= CLASSES:
        row = int((labels >= CLASSES).nonzero()[0])
        raise DataError(
            f"{path}: record {row} has label {int(labels[row])}, and CIFAR-10's run from 0 to 9. (CIFAR-100 "
            f"has other records, and is not read.) {REMEDY}"
        )
    return table[:, 1:].reshape(-1, 3, SIDE, SIDE), labels


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """(3,) mean and standard deviation of every channel, of values in [0, 1]; exact, from counts of bytes."""
    values = torch.arange(256, dtype=torch.double) / 255
    shares = torch.stack([torch.bincount(images[:, c].reshape(-1), minlength=256) for c in range(3)]).double()
    shares /= shares.sum(1, keepdim=True)
    mean = shares @ values
    return mean, (shares @ values.square() - mean.square()).clamp_min(0).sqrt()


def _normalised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(rows, 3, 32, 32) float32; a channel that never changes is only centred."""
    scale = torch.where(std > 0, std, 1.0)
    x = images.float().div_(255)
    return x.sub_(mean.float().reshape(3, 1, 1)).div_(scale.float().reshape(3, 1, 1))


def _list(values: Tensor) -> str:
    return ", ".join(f"{value:.4f}" for value in values.tolist())
