"""Whose code may run: a program that a run's folder names is evidence, and no order to execute it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bayesprune.errors import RunFolderError
from bayesprune.files import sha256_of
from bayesprune.programs import is_own

FLAG = "--trust-program"
MODEL_FILE, INFERENCE_FILE = "model file", "inference file"
"""What a run's record calls the files whose SHA-256 it holds."""

trust_option = click.option(
    FLAG,
    "trusted",
    metavar="FILE.py",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A program of your own that may be executed where a run's folder names it; its SHA-256 must be the "
    "one recorded there.",
)
"""The option by which a command takes a user's word for a program file."""


@dataclass(frozen=True)
class Trust:
    """The program files that the user named on this command line. Nothing else of a run's own is executed.

    Attributes:
        files: by ``--trust-program``; wherever they lie.
        named: as PROGRAM or ``--inference``; not from inside of the run's folder, which may have come from
            somebody else.
    """

    files: tuple[Path, ...] = ()
    named: tuple[Path, ...] = ()

    @staticmethod
    def of(trusted: Iterable[Path], named: Iterable[str | None] = ()) -> Trust:
        """From what a command was given.

        Args:
            trusted: files of ``--trust-program``.
            named: programs, shipped ones and None among them.
        """
        own = [Path(name) for name in named if name and is_own(name)]
        return Trust(tuple(map(_resolved, trusted)), tuple(map(_resolved, own)))


@dataclass(frozen=True)
class Admitted:
    """What of a run's record may be executed.

    Attributes:
        trust: what the user named.
        folder: the run's.
        record: content of its ``run.json``.
    """

    trust: Trust
    folder: Path
    record: dict[str, Any]

    def program(self, name: str, kind: str, model_names: str = "") -> tuple[str, str | None]:
        """A program of the record, as it may be executed.

        Args:
            name: of a shipped program, or path of a file.
            kind: what the record calls it: ``MODEL_FILE`` or ``INFERENCE_FILE``.
            model_names: an inference that the model names, which is trusted as the model is.

        Returns:
            Name or path, and the SHA-256 that its content must have; None for programs that ship.

        Raises:
            RunFolderError: the user has not named it, or it is not the file that the run began with. What
                would have been executed is said, and how to allow it.
        """
        if not is_own(name):
            return name, None
        digest = self._recorded(kind)
        for file in self.trust.files:
            if _digest(file) == digest:
                return str(file), digest
        path = _resolved(Path(name))
        if path not in self.trust.named and not (
            is_own(model_names) and path == _resolved(Path(model_names))
        ):
            raise RunFolderError(self._refusal(path, kind, digest))
        if path.is_relative_to(self.folder.resolve()):
            raise RunFolderError(
                f"{path}: lies inside the run's folder, which may have been made by somebody else, and was "
                f"not executed. Read it; if you trust it, add {FLAG} {shlex.quote(str(path))}."
            )
        return str(path), digest

    def _recorded(self, kind: str) -> str:
        digests = self.record.get("sha256")
        digest = digests.get(kind) if isinstance(digests, dict) else None
        if not isinstance(digest, str):
            raise RunFolderError(
                f"{self.folder}: its record holds no SHA-256 of the {kind}, so that it cannot be told "
                "whether the file is the one that was run. It is damaged or changed; nothing was executed."
            )
        return digest

    def _refusal(self, path: Path, kind: str, digest: str) -> str:
        others = ", ".join(f"{file} ({_short(_digest(file))})" for file in self.trust.files)
        given = f" None of the files given by {FLAG} is that one: {others}." if others else ""
        return (
            f"{self.folder}: its record names the {kind} {path} (SHA-256 {digest[:16]}…), which would have "
            f"been executed as Python. Nothing was: what a folder says is no order.{given} Read the file; if "
            f"you trust it, name it: {FLAG} {shlex.quote(str(path))}"
        )


def _resolved(path: Path) -> Path:
    return path.expanduser().resolve()


def _digest(file: Path) -> str | None:
    try:
        return sha256_of(file)
    except OSError:
        return None


def _short(digest: str | None) -> str:
    return f"SHA-256 {digest[:16]}…" if digest else "cannot be read"
