"""Files written whole or not at all, and read with an error that says what is wrong with them."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bayesprune.errors import BayespruneError, RunFolderError


def path_of(value: Any, place: str, error: type[BayespruneError] = RunFolderError) -> Path:
    """A path that a user gives.

    Args:
        value: a string, or anything that stands for a path.
        place: of it, for messages.
        error: raised where it is none.
    """
    try:
        return Path(value)
    except TypeError as problem:
        raise error(
            f"{place} is {value!r}, and must be a path: a string such as 'runs/a', or a pathlib.Path."
        ) from problem


def home_of(name: str, error: type[BayespruneError]) -> Path:
    """A path, ``~`` and ``~user`` at its beginning replaced by a home.

    Args:
        name: as the user writes it.
        error: raised where there is no such user.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise error(f"{name}: there is no such home. Write the whole path.") from None


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Write a file so that a reader, even after a crash, sees all of the old one or all of the new one.

    The data go to a temporary file in the same folder, are flushed to disk, and take the file's name in one
    step; then the folder is flushed too, since a name that is not on disk is lost with the power.

    Args:
        path: file to write; folders above it are made as needed.
        data: its content; text is written as UTF-8.

    Raises:
        OSError: the disk is full, or the folder cannot be written; the old file is untouched, and the error
            names the file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(Path(folder) / "a.txt", "whole")
        ...     (Path(folder) / "a.txt").read_text()
        'whole'
    """
    write_together({Path(path): data.encode() if isinstance(data, str) else data}, lambda _: None)


def write_together(contents: Mapping[Path, bytes], check: Callable[[dict[Path, Path]], None]) -> None:
    """Write files that belong together to the side, look at them, and only then give them their names.

    Args:
        contents: file → its content. Names are given in this order: the last file is the one that says which
            others it belongs to, so that a crash in between is noticed.
        check: given file → where it lies, reads what is on disk, and raises where it is not as it should be:
            then every file that was there before is untouched.

    Raises:
        OSError: the disk is full, or a folder cannot be written; the error names the file.
    """
    aside = {path: path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp") for path in contents}
    path = next(iter(contents))
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(aside[path], "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        check(aside)
        for path in contents:
            os.replace(aside[path], path)
            sync_folder(path.parent)
    except BaseException as problem:
        for temporary in aside.values():
            with contextlib.suppress(OSError):
                temporary.unlink()
        if isinstance(problem, OSError):
            problem.filename, problem.filename2 = str(path), None  # a failed write() names none
        raise


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to disk; a no-op where folders cannot be opened, as on Windows.

    Args:
        folder: whose entries were changed.
    """
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as problem:
        if problem.errno not in (errno.EINVAL, errno.ENOTSUP):  # what network disks answer
            raise
    finally:
        os.close(handle)


_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.tmp")


def is_temporary(path: Path) -> bool:
    """Whether a file is what a writer that was killed left of ``write_atomically``.

    Example:
        >>> is_temporary(Path("run/.result.json.0a1b2c3d.tmp")), is_temporary(Path("run/notes.tmp"))
        (True, False)
    """
    return _TEMPORARY.fullmatch(path.name) is not None


def sweep(folder: Path, names: str = "*") -> list[Path]:
    """Delete what killed writers left, in a folder and those in it; whoever calls holds the folder's lock.

    Args:
        folder: where to look.
        names: pattern of the files that were being written.

    Returns:
        What was deleted. What cannot be is left: it harms nobody.
    """
    swept = []
    for path in folder.rglob(".*.tmp"):
        found = _TEMPORARY.fullmatch(path.name)
        if found and fnmatch.fnmatchcase(found["name"], names) and path.is_file():
            with contextlib.suppress(OSError):
                path.unlink()
                swept.append(path)
    return swept


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
        error: the file is missing, truncated, does not hold an object, is nested too deeply to be read, has a
            key twice, or a number that is not finite or needs more than 64 bits.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(
            text,
            parse_int=_whole, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_once,
        )  # fmt: skip
        if _HALF_A_SIGN.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except FileNotFoundError:
        raise error(f"{path}: there is no such file.") from None
    except (OSError, ValueError, RecursionError) as problem:  # ValueError: UTF-8, JSON, and numbers too
        reason = "it is nested too deeply" if isinstance(problem, RecursionError) else problem
        raise error(f"{path}: cannot be read as JSON ({reason}). It is truncated or was changed.") from None
    if not isinstance(value, dict):
        raise error(f"{path}: holds {type(value).__name__}, not a JSON object. It was changed.")
    return value


_HALF_A_SIGN = re.compile(r"\\ud[89a-f]", re.IGNORECASE)
"""What may be half of a pair: alone it is text that cannot be written or printed."""
LONGEST_NUMBER = 400
"""Digits and signs; the longest float in full has fewer. Python refuses to read integers of 4,300 digits."""
LARGEST = 2**63


def _whole(text: str) -> int:
    value = int(text) if len(text) <= LONGEST_NUMBER else LARGEST
    if not -LARGEST <= value < LARGEST:
        raise ValueError(f"the whole number {text:.12}… needs more than 64 bits")
    return value


def _finite(text: str) -> float:
    value = float(text) if len(text) <= LONGEST_NUMBER else math.inf
    if not math.isfinite(value):
        raise ValueError(f"the number {text:.12} is not finite")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a key that is there twice would hide what stands first from whoever reads the file."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r:.40} is there twice")
    return found


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
