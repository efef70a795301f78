"""The command `bayesprune`, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import click

import bayesprune
from bayesprune.cli.certify import certify_command
from bayesprune.cli.diagnose import diagnose_command
from bayesprune.cli.export import export_command
from bayesprune.cli.programs import copy_command, list_command
from bayesprune.cli.report import report_command
from bayesprune.cli.run import run_command
from bayesprune.cli.streams import complain, open_all
from bayesprune.errors import BayespruneError, BudgetWarning, CertificateWarning, EmptyGroupWarning

USER_ERROR = 2
OUR_FAULT = 70
"""EX_SOFTWARE of sysexits.h: never 1, which is the answer "no" of `diagnose` and `certify`."""
INTERRUPTED = 130
TERMINATED = 143


class _ReaderLeft(Exception):
    """Whoever read stdout has left; click would make exit code 1 of it, which is the answer "no"."""


class _Group(click.Group):
    def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
        with _told_apart():
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        with _told_apart():
            return super().invoke(ctx)


@contextlib.contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as left:
        raise _ReaderLeft from left


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(bayesprune.__version__, prog_name="bayesprune")
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
def command(debug: bool) -> None:
    """Train a network that prunes itself, by Bayesian inference over its units.

    \b
    bayesprune run lenet5 --data digits     train and prune LeNet-5 on embedded digits, offline
    bayesprune list                         what can be run
    bayesprune diagnose runs/lenet5-digits  is the mask converged, and can it be trusted?
    bayesprune report runs/lenet5-digits    the run as one page to read
    bayesprune certify runs/lenet5-digits   prune it further, with a bound on what that costs
    bayesprune copy lenet5 mine.py          take a program to change, then: bayesprune run ./mine.py
    """


_COMMANDS = (
    run_command,
    list_command,
    copy_command,
    diagnose_command,
    report_command,
    certify_command,
    export_command,
)

for _command in _COMMANDS:
    command.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: words after `bayesprune`; by default those of the process.

    Returns:
        Exit code: 0; 1 where the answer is no (not converged, no certificate, a false one); 2 for what the
        user can mend, damaged files too; 70 for a fault of this library; 130 for an interruption, 143 where
        that was SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with warnings.catch_warnings(), interrupted_by_sigterm() as terminated:
        warnings.filterwarnings("ignore", message=r"\s*ArviZ is undergoing", category=FutureWarning)
        warnings.showwarning = _show_warning
        if arguments is None:
            open_all()
        code = _run(words)
        return TERMINATED if code == INTERRUPTED and terminated else code


@contextlib.contextmanager
def interrupted_by_sigterm() -> Iterator[list[int]]:
    """Take SIGTERM as Ctrl-C: what was computed is kept, and what to do next is said.

    Yields:
        The signals that came.
    """
    came: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        came.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield came
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(words: list[str]) -> int:
    try:
        return int(command.main(words, prog_name="bayesprune", standalone_mode=False) or 0)
    except click.ClickException as problem:
        with contextlib.suppress(OSError):  # stderr has no reader
            problem.show()
        return problem.exit_code
    except (click.Abort, KeyboardInterrupt) as problem:
        if isinstance(problem.__cause__, EOFError):  # click takes it for a Ctrl-D
            return _failed(problem.__cause__, words)
        complain("Interrupted.")
        return INTERRUPTED
    except _ReaderLeft as left:  # 'bayesprune run --help | head' did all that was asked
        helped = {"-h", "--help", "--version"} & set(words)
        return 0 if helped else _failed(left.__cause__ or left, words)
    except BaseException as problem:
        return _failed(problem, words)


def _failed(problem: BaseException, words: list[str]) -> int:
    """Tell what went wrong; 2 where the user can mend it, 70 where we must."""
    message = _message(problem)
    if message is None or "--debug" in words:
        complain("".join(traceback.format_exception(problem)).rstrip())
    if message is None:
        kind = type(problem).__name__
        complain(
            f"Error: this is a fault of bayesprune {bayesprune.__version__}, not of what you asked ({kind}). "
            "Please report it, with the lines above and the command that you gave."
        )
        return OUR_FAULT
    complain(f"Error: {message}")
    return USER_ERROR


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: Any = None,
) -> None:
    """A warning as one line of text; whose code gave it matters only where it is not ours."""
    place = (
        ""
        if category in (BudgetWarning, CertificateWarning, EmptyGroupWarning)
        else f"{filename}:{lineno}: {category.__name__}: "
    )
    complain(f"Warning: {place}{message}")


def _message(problem: BaseException) -> str | None:
    """What to tell the user, or None for a fault of the library, whose traceback is worth a report."""
    if isinstance(problem, BayespruneError):
        return str(problem)
    if isinstance(problem, OSError) and problem.strerror:
        place = f"{os.fsdecode(problem.filename)}: " if problem.filename else ""
        return f"{place}{problem.strerror}. Check that the place can be read and written, and has room."
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return "out of memory. Take a smaller --batch-size, or --device cpu."
    if isinstance(problem, RuntimeError) and "DefaultCPUAllocator: can't allocate" in str(problem):
        return "out of memory. Take a smaller --batch-size."
    return None
