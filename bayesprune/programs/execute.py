"""Run program files and their functions; a fault in a user's own file becomes a message with its line."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from bayesprune.errors import BayespruneError, ProgramError
from bayesprune.programs.find import Program


def execute(program: Program) -> ModuleType:
    """Run a program file once, as a module of its own.

    Args:
        program: the file.

    Returns:
        The module.

    Raises:
        ProgramError: the file does not run; file, line and fault are named.
    """
    name = f"_bayesprune_program_{program.path.parent.name}_{program.name}".replace(".", "_")
    loader = _Source(name, str(program.path))
    spec = importlib.util.spec_from_file_location(name, program.path, loader=loader)
    if spec is None or spec.loader is None:
        raise ProgramError(f"{program.path}: cannot be loaded as Python. Programs are .py files.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    if program.own and str(program.path.parent) not in sys.path:
        sys.path.insert(
            0, str(program.path.parent)
        )  # as 'python mine.py' does: the file may import its neighbours
    try:
        spec.loader.exec_module(module)
    except BayespruneError:
        raise
    except (Exception, SystemExit) as problem:
        sys.modules.pop(name, None)
        if not program.own:
            raise
        raise _fault(program, "the file does not run", problem) from problem
    return module


class _Source(importlib.machinery.SourceFileLoader):
    """Loads a file and leaves nothing beside it: a user's folder is not for our byte code."""

    def set_data(self, path: str, data: bytes, *, _mode: int = 0o666) -> None:  # type: ignore[override]
        """Write no cache."""


def _fault(program: Program, what: str, problem: BaseException) -> ProgramError:
    if isinstance(problem, SyntaxError) and problem.filename == str(program.path):
        line: int | None = problem.lineno
    else:
        frames = traceback.extract_tb(problem.__traceback__)
        line = next((f.lineno for f in reversed(frames) if f.filename == str(program.path)), None)
    place = f"{program.path}, line {line}" if line else str(program.path)
    message = str(getattr(problem, "msg", None) or problem).strip() or "no message"
    return ProgramError(
        f"{place}: {what}: {type(problem).__name__}: {message}\n"
        "Mend the file; 'bayesprune --debug run …' shows the whole traceback."
    )


def run_own(program: Program, what: str, call: Callable[[], Any]) -> Any:
    """Run a function of a program; a fault in a user's own file is told as such, with its line.

    Args:
        program: whose function it is.
        what: the function's name.
        call: runs it.

    Returns:
        What the function returns.

    Raises:
        ProgramError: an exception in a user's own file. Errors of bayesprune, and faults of shipped
            programs, pass.
    """
    try:
        return call()
    except (BayespruneError, OSError, MemoryError):
        raise
    except Exception as problem:
        if not program.own or type(problem).__name__ == "OutOfMemoryError":
            raise
        raise _fault(program, f"{what}() failed", problem) from problem
