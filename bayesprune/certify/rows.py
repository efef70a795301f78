"""Calibration rows: checked, and compared with each other and with the rows that were trained on."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bayesprune.certify.hashes import hash_of_rows
from bayesprune.certify.training_rows import TrainingRows
from bayesprune.errors import CertificateError, CertificateWarning, DataError
from bayesprune.rows import Form, Inputs, rows_from
from bayesprune.rows.digests import repeated

NONE, ONCE, EACH = "none", "once", "each"
REPEATS = ("refuse", ONCE, EACH)
"""What may be done with rows whose inputs equal an earlier row's."""


@dataclass(frozen=True)
class CalibrationRows:
    """Rows that a certificate rests on.

    Attributes:
        x: (rows, ...), inputs.
        y: (rows, ...), labels, or None.
        known: how it is known that they were not trained on, in words; empty where it is still to be seen.
        repeats: ``"none"``: no two rows have the same inputs; ``"once"``: copies of an earlier row were left
            out; ``"each"``: there are rows that equal an earlier one, and each is a draw of its own.
    """

    x: Inputs
    y: Tensor | None
    known: str = ""
    repeats: str = NONE

    def __len__(self) -> int:
        return len(self.x)

    @property
    def sha256(self) -> str:
        """Of inputs and labels, in order."""
        return hash_of_rows(self.x, self.y)

    @staticmethod
    def of(rows: Any, repeats: str = "refuse", target: str = "labels") -> CalibrationRows:
        """Inputs, or inputs and labels, checked.

        A p-value counts independent draws. Of a row that is there twice nobody but who drew the rows can say
        whether it was copied, and then it is one draw, or drawn twice, as happens where inputs have few
        values; to leave out what was drawn twice would change the source. So such rows are refused, until it
        is said which they are.

        Args:
            rows: what ``fit`` takes, labels left out where none are needed.
            repeats: ``"refuse"`` rows whose inputs equal an earlier row's; count them ``"once"``, as copies;
                or ``"each"``, as draws of their own. Rows that are ``CalibrationRows`` have said it already.
            target: under which name rows that are a dict of inputs and labels have the labels.

        Raises:
            CertificateError: no rows, not whole, or some that repeat.
        """
        known, given = "", rows
        if isinstance(rows, CalibrationRows):
            known, repeats = rows.known, repeats if rows.repeats == NONE else rows.repeats
            given = (rows.x, rows.y)
        try:
            form = Form(target=target)
            x, y = rows_from(given, "Calibration rows", targets=False, form=form).tensors()
        except DataError as problem:
            raise CertificateError(str(problem)) from problem
        if repeats not in REPEATS:
            raise CertificateError(f"repeats={repeats!r}: choose one of {', '.join(REPEATS)}.")
        again = repeated(x)
        if not again.any():
            said = isinstance(rows, CalibrationRows) and rows.repeats == ONCE
            return CalibrationRows(x, y, known, ONCE if said else NONE)
        if repeats == EACH:
            return CalibrationRows(x, y, known, EACH)
        if repeats == ONCE:
            first = ~again
            return CalibrationRows(x[first], None if y is None else y[first], known, ONCE)
        raise CertificateError(
            f"{int(again.sum()):,} of the {len(x):,} calibration rows equal an earlier one, first row "
            f"{int(again.argmax())}. The guarantee counts independent draws, and copies are one draw. Leave "
            'them out, CalibrationRows.of(rows, repeats="once"); or, where the source itself has few '
            'different rows and each of these was drawn by itself, say so: repeats="each" (--repeats once, '
            "--repeats each)."
        )


def held_out(rows: CalibrationRows, trained_on: Any, target: str = "labels") -> str:
    """Make sure that no calibration row was trained on, as far as that can be known.

    Args:
        rows: of calibration.
        trained_on: the training rows in any form that ``fit`` takes, or their digests; None where they are
            not known.
        target: under which name rows that are a dict of inputs and labels have the labels.

    Returns:
        What is known, in words, for the certificate.

    Raises:
        CertificateError: some were trained on; how many is said. Or the two cannot be compared.

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
    known = TrainingRows.of(trained_on, target)
    compared = known.compared(rows.x)
    reused = int(compared.found.sum())
    if reused:
        raise CertificateError(
            f"{reused:,} of the {len(rows):,} calibration rows were trained on: the network knows them, "
            "and its risk on new rows may be far higher. Give rows that it has never seen."
        )
    return (
        f"none of them is among the {len(known):,} training rows, by digests of their numbers in "
        f"{compared.type}; rows that were flipped, moved, put in another order, rescaled or given noise are "
        "not recognised"
    )
