"""States of what watches a certificate, as files: whole or not at all, and never changed unseen."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from bayesprune.errors import CertificateError
from bayesprune.files import read_json, write_json
from bayesprune.schema import Number, Record, Shape, Text, check

VERSION = 1


def write_state(path: str | Path, kind: str, values: dict[str, Any]) -> None:
    """Write a state as JSON, with a digest of all that it holds.

    Args:
        path: file to write.
        kind: of state, as ``"bayesprune monitor"``.
        values: plain.
    """
    record = {"format": kind, "format_version": VERSION, **values}
    write_json(path, {**record, "sha256": _digest(record)})


def read_state(path: str | Path, kind: str, shape: Record) -> dict[str, Any]:
    """The values of a state that was written.

    Args:
        path: the file.
        kind: of state.
        shape: of its values.

    Raises:
        CertificateError: it is missing, holds no such state, or was changed since it was written.
    """
    record = read_json(path, CertificateError)
    heads: dict[str, Shape] = {
        "format": Text((kind,)),
        "format_version": Number(VERSION, VERSION, whole=True),
        "sha256": Text(),
    }
    whole = Record({**heads, **shape.fields}, closed=True)
    check(record, whole, path, CertificateError)
    rest = {key: value for key, value in record.items() if key != "sha256"}
    if _digest(rest) != record["sha256"]:
        raise CertificateError(f"{path}: it was changed after it was written: its digest is another.")
    return {key: value for key, value in rest.items() if key not in heads}


def _digest(record: dict[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
