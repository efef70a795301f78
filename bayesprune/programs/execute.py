"""Run program files and their functions; a fault in a user's own file becomes a message with its line."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import sys
import traceback
from collections.abc import Callable
from types import CodeType, ModuleType
from typing import Any

from bayesprune.errors import BayespruneError, ProgramError
from bayesprune.programs.find import Program


def execute(program: Program, sha256: str | None = None) -> ModuleType:
    """Run a program file once, as a module of its own.

    Args:
        program: the file.
        sha256: what its content must be; compared with the very bytes that are compiled, before any of them
            runs. None where the file is run as it is.

    Returns:
        The module.

    Raises:
        ProgramError: the file is another one, or does not run; file, line and fault are named.
    """
    name = f"_bayesprune_program_{program.path.parent.name}_{program.name}".replace(".", "_")
    loader = _Source(name, str(program.path), sha256)
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
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # SystemExit, and whatever a file raises
        sys.modules.pop(name, None)
        if not program.own:
            raise
        raise _fault(program, "the file does not run", problem) from problem
    return module


class _Source(importlib.machinery.SourceFileLoader):
    """Compiles a file's source, always: byte code that lies beside it may be of another source."""

    def __init__(self, name: str, path: str, sha256: str | None) -> None:
        super().__init__(name, path)
        self.sha256 = sha256

    def get_code(self, fullname: str) -> CodeType:
        """The code of the file as it is now; nothing is read from a cache, nor written to one."""
        source = self.get_data(self.path)
        found = hashlib.sha256(source).hexdigest()
        if self.sha256 not in (None, found):
            raise ProgramError(
                f"{self.path}: is another file (SHA-256 {found[:16]}…) than the one that was run "
                f"({str(self.sha256)[:16]}…); it changed after the run began, and was not executed. Put back "
                "what the run began with."
            )
        return self.source_to_code(source, self.path)


def _fault(program: Program, what: str, problem: BaseException) -> ProgramError:
    if isinstance(problem, SyntaxError) and problem.filename == str(program.path):
        line: int | None = problem.lineno
    else:
        frames = traceback.extract_tb(problem.__traceback__)
        line = next((f.lineno for f in reversed(frames) if f.filename == str(program.path)), None)
    place = f"{program.path}, line {line}" if line else str(program.path)
    try:
        message = str(getattr(problem, "msg", None) or problem).strip() or "no message"
    except Exception:  # it is the file's own class
        message = "no message that could be shown"
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
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # SystemExit too: the exit code is not the program's
        if not program.own or type(problem).__name__ == "OutOfMemoryError":
            raise
        raise _fault(program, f"{what}() failed", problem) from problem
