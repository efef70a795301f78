"""Certificates that lie in a run's folder: what they promise, and how to check that they are true."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bayesprune.certify import Certificate
from bayesprune.errors import CertificateError
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
        checks it. Of one that cannot be read, an older version's or a damaged one, what is wrong and what to
        do, and nothing that it says.
    """
    return [
        _row(path, run)
        for run in runs
        for path in sorted({*run.folder.glob(FILE), *run.folder.glob(f"{SEED}*/{FILE}")})
    ]


def _row(path: Path, run: Run) -> dict[str, Any]:
    try:
        found = Certificate.read(path)
    except CertificateError as problem:
        told = str(problem).replace(str(path), place(path))
        again = f"bayesprune certify {shlex.quote(place(path.parent.parent))}"
        return {
            "place": place(path.parent),
            "certified": False,
            "problem": f"{told} The report is of the run alone. Move {place(path.parent)} away, and then",
            "again": again,
        }
    return {
        "place": place(path.parent),
        "problem": "",
        "statement": found.statement,
        "assumes": str(found.record["assumes"]),
        "certified": found.certified,
        "check": _check(path, run),
    }


def _check(path: Path, run: Run) -> str:
    words = [place(path), place(path.parent), place(run.folder)]
    return f"bayesprune certify --verify {shlex.join(words)}"
