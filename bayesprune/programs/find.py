"""Find a program file by its name or path; nothing is run."""

from __future__ import annotations

import ast
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import bayesprune
from bayesprune.errors import ProgramError
from bayesprune.files import home_of

Kind = Literal["models", "inference"]
"""What a program is of: the folder that it lies in."""


@dataclass(frozen=True)
class Program:
    """A program file.

    Attributes:
        name: what it is called by, the file's name without ``.py``.
        path: the file.
        description: first line of its docstring.
        own: whether it is a user's own, not one that ships.
    """

    name: str
    path: Path
    description: str
    own: bool


def find(name: str, *kinds: Kind) -> Program:
    """Find a program file, without running it.

    Args:
        name: name of a shipped program, or path of a ``.py`` file.
        kinds: where names are looked up; by default both.

    Returns:
        The program.

    Raises:
        ProgramError: there is none, with the nearest names.
    """
    kinds = kinds or ("models", "inference")
    if not name.strip():
        raise ProgramError("A program is named by '': give a name from 'bayesprune list', or a .py file.")
    path = home_of(name, ProgramError)
    if is_own(name):
        return _own(name, path, kinds)
    shipped = {program.name: program for kind in kinds for program in available(kind)}
    if name in shipped:
        return shipped[name]
    what = " or ".join({"models": "model", "inference": "inference"}[kind] for kind in kinds)
    near = difflib.get_close_matches(name, shipped, n=2, cutoff=0.5)
    if path.with_suffix(".py").is_file():
        hint = f"For your own file, write ./{name}.py."
    elif near:
        hint = f"Did you mean {' or '.join(near)}?"
    else:
        hint = f"There are: {', '.join(shipped) or 'none'}."
    raise ProgramError(f"No {what} is called {name!r}. {hint} 'bayesprune list' shows them all.")


def is_own(name: str) -> bool:
    """Whether a name is the path of a user's own file, not that of a program that ships.

    Example:
        >>> is_own("lenet5"), is_own("./mine.py"), is_own("mine.py"), is_own("a/lenet5")
        (False, True, True, True)
    """
    return Path(name).suffix == ".py" or Path(name).name != name


def available(kind: Kind) -> list[Program]:
    """All programs of a kind that ship.

    Args:
        kind: ``'models'`` or ``'inference'``.

    Returns:
        The programs, by name.
    """
    files = sorted(_folder(kind).glob("*.py"))
    return [Program(path.stem, path, _description(path), own=False) for path in files if path.stem[0] != "_"]


def _folder(kind: Kind) -> Path:
    """In a wheel the programs lie inside the package, in a checkout beside it."""
    package = Path(bayesprune.__file__).parent
    inside, beside = package / kind, package.parent / kind
    return beside if (package.parent / "pyproject.toml").is_file() and beside.is_dir() else inside


def _own(name: str, path: Path, kinds: tuple[Kind, ...]) -> Program:
    if not path.is_file():
        shipped = {program.name: program for kind in kinds for program in available(kind)}
        near = difflib.get_close_matches(path.stem, shipped, n=1, cutoff=0.6)
        hint = f" For the one that ships, write {near[0]}." if near else ""
        raise ProgramError(f"{name}: there is no such file. Check the path.{hint}")
    return Program(path.stem, path.resolve(), _description(path), own=True)


def _description(path: Path) -> str:
    try:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):  # whatever the parser meets
        return ""
    return (docstring or "").strip().split("\n")[0]
