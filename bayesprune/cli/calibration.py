"""Rows for certificates: kept apart by a run, or brought in a file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes

from bayesprune.certify import TrainingRows
from bayesprune.data import Dataset, Split, load
from bayesprune.errors import CertificateError

TRAINING_ROWS = "training_rows.safetensors"
SPLIT_SEED = 0


def keep_apart(data: Dataset, share: float, seed: int = SPLIT_SEED) -> tuple[Dataset, Split | None]:
    """Take a share of the training rows out, drawn without regard to anything, the same for every seed of a
    run.

    Args:
        data: all rows.
        share: of the training rows, in [0, 1).
        seed: of the draw.

    Returns:
        The data without them, and the rows; None where the share comes to no row at all.

    Example:
        >>> data, kept = keep_apart(load("digits"), 0.1)
        >>> len(data.train), len(kept)
        (1293, 144)
    """
    rows = len(data.train)
    count = round(share * rows)
    if count == 0:
        return data, None
    order = torch.from_numpy(np.random.default_rng(seed).permutation(rows))
    kept, left = order[:count].sort().values, order[count:].sort().values
    train = data.train
    return replace(data, train=Split(train.x[left], train.y[left])), Split(train.x[kept], train.y[kept])


@dataclass(frozen=True)
class Unseen:
    """Rows that a run kept apart, as a certificate can rest on them.

    Attributes:
        rows: that equal none that was trained on; None where the run kept none.
        left_out: how many do equal one. What the others show is the risk of rows unlike those trained on.
    """

    rows: Split | None
    left_out: int = 0


def unseen(data: Dataset, share: float, seed: int = SPLIT_SEED) -> Unseen:
    """The rows that ``keep_apart`` keeps, without those that are among the training rows all the same, since
    the data hold them twice.

    Args:
        data: all rows.
        share: of the training rows, in [0, 1).
        seed: of the draw.
    """
    left, kept = keep_apart(data, share, seed)
    if kept is None:
        return Unseen(None)
    known = torch.from_numpy(TrainingRows.of(left.train.x).among(kept.x))
    return Unseen(Split(kept.x[~known], kept.y[~known]), int(known.sum()))


def rows_of_file(path: Path) -> Split:
    """Rows from a safetensors file with the tensors ``x`` and ``y``.

    Args:
        path: the file.

    Raises:
        CertificateError: it cannot be read, or has others.
    """
    try:
        tensors = tensors_from_bytes(path.read_bytes())
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as problem:
        # beyond the format's own errors: types and shapes in the header that PyTorch does not have
        raise CertificateError(f"{path}: cannot be read as safetensors ({problem}).") from None
    if "x" not in tensors or set(tensors) - {"x", "y"}:
        raise CertificateError(
            f"{path}: holds the tensors {', '.join(sorted(tensors)) or 'none'}. Rows are x, (rows, …), and "
            "y, (rows,), which may be left out where no labels are needed."
        )
    return Split(tensors["x"], tensors.get("y"))  # type: ignore[arg-type]


def rows_of(source: str, data_dir: str | None, split: dict[str, Any]) -> Split:
    """The rows of a certificate, from a data set or a file.

    Args:
        source: name or folder of a data set, or a safetensors file.
        data_dir: where MNIST lies.
        split: which of the data set's rows: ``{"of": "train", "share": …, "seed": …}`` or ``{"of": "test"}``.

    Raises:
        CertificateError: the certificate says of no data set which rows are meant.
    """
    if source.endswith(".safetensors"):
        return rows_of_file(Path(source))
    data = load(source, data_dir)
    if split.get("of") == "test":
        return data.test
    if split.get("of") == "train":
        kept = unseen(data, float(split["share"]), int(split["seed"])).rows
        if kept is not None:
            return kept
    raise CertificateError(
        f"{source}: the certificate does not say which of its rows are meant. Give the calibration rows "
        "themselves, as a safetensors file with the tensors x and y."
    )
