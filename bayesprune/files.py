"""Files written whole or not at all, and read with an error that says what is wrong with them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from bayesprune.errors import BayespruneError, RunFolderError


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Write a file so that a reader, even after a crash, sees all of the old one or all of the new one.

    The data go to a temporary file in the same folder, are flushed to disk, and take the file's name in one
    step.

    Args:
        path: file to write; folders above it are made as needed.
        data: its content; text is written as UTF-8.

    Raises:
        OSError: the disk is full, or the folder cannot be written; the old file is untouched.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(Path(folder) / "a.txt", "whole")
        ...     (Path(folder) / "a.txt").read_text()
        'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_json(path: str | Path, value: Any, indent: int | None = 2) -> None:
    """Write a value as JSON, atomically; NaN is refused, as JSON has none.

    Args:
        path: file to write.
        value: whatever ``json.dumps`` takes.
        indent: columns a level; None for one line.
    """
    write_atomically(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def read_json(path: str | Path, error: type[BayespruneError] = RunFolderError) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: file to read.
        error: class of the error to raise.

    Returns:
        The object.

    Raises:
        error: the file is missing, truncated, or does not hold an object.
    """
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path}: there is no such file.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as problem:
        raise error(f"{path}: cannot be read as JSON ({problem}). It is truncated or was changed.") from None
    if not isinstance(value, dict):
        raise error(f"{path}: holds {type(value).__name__}, not a JSON object. It was changed.")
    return value


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's content.

    Args:
        path: file to read.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
