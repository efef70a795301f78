"""What the process writes to: streams that are closed, or whose reader has left, are no fault of a run."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

WORLD_SIZE, RANK = "WORLD_SIZE", "RANK"
"""Where torchrun says how many processes it has started, and which of them this one is."""


def first_of_several() -> bool:
    """Whether this process is the first, or the only one, that was started with its words."""
    return os.environ.get(WORLD_SIZE, "1") == "1" or os.environ.get(RANK, "0") == "0"


def open_all() -> None:
    """Give the process its three streams, where it was started without one (``2>&-``, some supervisors).

    A file that is opened later would else take the number of the missing stream, and whatever a library
    writes to stderr would end in the middle of it. Names of files that are no UTF-8 are written with escapes.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            if not _is_open(number):
                _to_nothing(number)
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def tell(text: Any) -> None:
    """Print a result on stdout. What a command has done, and its exit code, stand even if nobody reads it.

    Args:
        text: to print.

    Raises:
        OSError: it cannot be written for another reason; the stream is named.
    """
    try:
        click.echo(text)
    except BrokenPipeError:  # 'bayesprune diagnose RUN | head -1'
        stop_telling()
    except OSError as problem:
        stop_telling()
        raise OSError(problem.errno, problem.strerror, "standard output") from None


def complain(text: str) -> None:
    """Print a message on stderr, if anybody reads that.

    Args:
        text: to print.
    """
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def stop_telling() -> None:
    """Nobody reads stdout any more: what is still written to it goes nowhere, at the process' end too."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):  # no file: a test's, or a notebook's
        return
    _to_nothing(number)


def quoted(*words: str | Path) -> str:
    """Words as a shell takes them: for commands that are printed to be copied.

    Example:
        >>> quoted("bayesprune", "diagnose", "my run;$(x)")
        "bayesprune diagnose 'my run;$(x)'"
    """
    return shlex.join(str(word) for word in words)


def in_python(path: Path) -> str:
    """A path as Python reads it: for lines that are printed to be copied.

    Example:
        >>> print(in_python(Path('a"b')))
        "a\\"b"
    """
    return json.dumps(str(path), ensure_ascii=False)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _to_nothing(number: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)
