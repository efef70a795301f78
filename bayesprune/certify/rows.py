"""Calibration rows: checked, and compared with the rows that were trained on."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from bayesprune.certify.hashes import digests_of_rows, hash_of_rows
from bayesprune.errors import CertificateError, CertificateWarning
from bayesprune.files import write_atomically


@dataclass(frozen=True)
class CalibrationRows:
    """Rows that a certificate rests on.

    Attributes:
        x: (rows, ...), inputs.
        y: (rows, ...), labels, or None.
        known: how it is known that they were not trained on, in words; empty where it is still to be seen.
    """

    x: Tensor
    y: Tensor | None
    known: str = ""

    def __len__(self) -> int:
        return len(self.x)

    @property
    def sha256(self) -> str:
        """Of inputs and labels, in order."""
        return hash_of_rows(self.x, self.y)

    @staticmethod
    def of(rows: Any) -> CalibrationRows:
        """Inputs, or a pair of inputs and labels, checked.

        Args:
            rows: a tensor, a pair (x, y), or anything with attributes x and y, as a ``Split``.

        Raises:
            CertificateError: no tensors, none or unequal numbers of rows, or inputs that are not finite.
        """
        known = rows.known if isinstance(rows, CalibrationRows) else ""
        if hasattr(rows, "x") and hasattr(rows, "y"):
            rows = (rows.x, rows.y)
        x, y = rows if isinstance(rows, tuple | list) and len(rows) == 2 else (rows, None)
        wrong = [
            f"{name} is {type(value).__name__}, not a tensor"
            for name, value in (("x", x), ("y", y))
            if not isinstance(value, Tensor) and not (name == "y" and value is None)
        ]
        if wrong:
            raise CertificateError(
                f"Calibration rows: {'; '.join(wrong)}. Give inputs x, or a pair (x, y) of tensors."
            )
        if not x.ndim or not len(x):
            wrong.append("there are none")
        elif y is not None and len(x) != len(y if y.ndim else []):
            wrong.append(f"x has {len(x)} rows and y {len(y) if y.ndim else 'no dimension'}")
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            broken = int((~torch.isfinite(x.reshape(len(x), -1))).any(1).sum())
            wrong.append(f"{broken} of the {len(x)} inputs hold NaN or infinity")
        if wrong:
            raise CertificateError(f"Calibration rows: {'; '.join(wrong)}. Give rows that are whole.")
        return CalibrationRows(x, y, known)


@dataclass(frozen=True)
class TrainingRows:
    """Which rows were trained on, known by their digests: enough to find a row that is used twice.

    Attributes:
        digests: (rows,), uint64, sorted.
    """

    digests: npt.NDArray[np.uint64]

    @staticmethod
    def of(x: Tensor | TrainingRows) -> TrainingRows:
        """Of the inputs of the training rows, (rows, ...)."""
        return x if isinstance(x, TrainingRows) else TrainingRows(np.sort(digests_of_rows(x)))

    def __len__(self) -> int:
        return len(self.digests)

    def among(self, x: Tensor) -> npt.NDArray[np.bool_]:
        """(rows,), whether each of these rows was trained on."""
        found: npt.NDArray[np.bool_] = np.isin(digests_of_rows(x), self.digests)
        return found

    def write(self, path: Path) -> None:
        """Write the digests as safetensors, eight bytes a row."""
        content = torch.from_numpy(self.digests.view(np.int64).copy())
        write_atomically(path, tensors_to_bytes({"digests": content}))

    @staticmethod
    def read(path: Path) -> TrainingRows:
        """Read what ``write`` wrote.

        Raises:
            CertificateError: the file is missing or damaged.
        """
        try:
            content = tensors_from_bytes(path.read_bytes())["digests"].numpy().view(np.uint64)
        except (OSError, SafetensorError, KeyError) as problem:
            raise CertificateError(
                f"{path}: cannot be read as digests of training rows ({problem}). It is missing, truncated "
                "or was changed."
            ) from None
        return TrainingRows(content)


def held_out(rows: CalibrationRows, trained_on: Tensor | TrainingRows | None) -> str:
    """Make sure that no calibration row was trained on, as far as that can be known.

    Args:
        rows: of calibration.
        trained_on: inputs of the training rows, or their digests; None where they are not known.

    Returns:
        What is known, in words, for the certificate.

    Raises:
        CertificateError: some were trained on; how many is said.

    Warns:
        CertificateWarning: nothing is known.
    """
    if rows.known:
        return rows.known
    if trained_on is None:
        warnings.warn(
            "It cannot be known whether the calibration rows were trained on; if they were, the "
            "certificate is worth nothing. Give the training inputs, trained_on=x_train, and it is checked.",
            CertificateWarning,
            stacklevel=3,
        )
        return "not known to be held out: the training rows were not given"
    known = TrainingRows.of(trained_on)
    reused = int(known.among(rows.x).sum())
    if reused:
        raise CertificateError(
            f"{reused:,} of the {len(rows):,} calibration rows were trained on: the network knows them, "
            "and its risk on new rows may be far higher. Give rows that it has never seen."
        )
    return f"none of them is among the {len(known):,} training rows, by digest"
