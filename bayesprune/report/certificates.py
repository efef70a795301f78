"""Certificates that lie in a run's folder: what they promise, and how to check that they are true."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bayesprune.certify import Certificate
from bayesprune.report.commands import place
from bayesprune.report.reading import Run
from bayesprune.runs import SEED

FILE = "certificate/certificate.json"
"""Where `bayesprune certify RUN` puts it, in the folder of the run or of a seed."""


def certificate_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What each certificate of some runs says; the page repeats it, and does not check it.

    Args:
        runs: from ``read_runs``.

    Returns:
        For each: where, the statement, what it assumes, whether a network is certified, and the command that
        checks it.

    Raises:
        CertificateError: a file is damaged, or no certificate of this version.
    """
    rows = []
    for run in runs:
        for path in sorted({*run.folder.glob(FILE), *run.folder.glob(f"{SEED}*/{FILE}")}):
            found = Certificate.read(path)
            rows.append(
                {
                    "place": place(path.parent),
                    "statement": found.statement,
                    "assumes": str(found.record["assumes"]),
                    "certified": found.certified,
                    "check": _check(path, run),
                }
            )
    return rows


def _check(path: Path, run: Run) -> str:
    words = [place(path), place(path.parent), place(run.folder)]
    return f"bayesprune certify --verify {shlex.join(words)}"
