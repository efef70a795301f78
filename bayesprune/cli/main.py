"""The command `bayesprune`, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, cast

import click

import bayesprune
from bayesprune.cli.streams import complain, first_of_several, open_all
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


COMMANDS = {
    "run": ("run", "Train PROGRAM and prune it while it learns."),
    "list": ("programs", "List the models and inference procedures that ship."),
    "copy": ("programs", "Copy a program to FILE, to read and change."),
    "diagnose": ("diagnose", "Say whether the mask of RUN is converged, in five answers."),
    "report": ("report", "Write one HTML file about RUN: how small, how good, how sure."),
    "certify": ("certify", "Prune the network of RUN as far as its risk stays below a bound."),
    "monitor": ("monitor", "Say whether new rows show that a certificate has expired."),
    "export": ("export", "Write the pruned network of RUN as ONNX, or as a folder."),
    "reproduce": ("reproduce", "Run a table of the field again, beside what was published."),
}
"""Command → the module of `bayesprune.cli` that has it, and its line in ``--help``."""


class _LateCommands(_Group):
    """Commands that are imported when they are called: most need PyTorch, and ``--help`` does not."""

    def list_commands(self, context: click.Context) -> list[str]:
        """The names, in the order in which a user comes to need them."""
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if name not in COMMANDS:
            return None
        module = import_module(f"bayesprune.cli.{COMMANDS[name][0]}")
        return cast(click.Command, getattr(module, f"{name}_command"))

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of ``--help``, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(
    cls=_LateCommands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(bayesprune.__version__, prog_name="bayesprune")
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
def command(debug: bool) -> None:
    """Train a network that prunes itself, by Bayesian inference over its units.

    \b
    bayesprune run lenet5 --data digits     train and prune LeNet-5 on embedded digits, offline
    bayesprune list                         what can be run
    bayesprune diagnose runs/lenet5-digits  is the mask converged, and can it be trusted?
    bayesprune report runs/lenet5-digits    the run as one page to read
    bayesprune certify runs/lenet5-digits   how many more weights can be zero, and what that costs at most
    bayesprune copy lenet5 mine.py          take a program to change, then: bayesprune run ./mine.py
    """


for _name in COMMANDS:  # the nearest of these names are proposed for one that is misspelt
    command.add_command(click.Command(_name))


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
    started = time.perf_counter()  # before PyTorch is imported, for which the user waits too
    try:
        return int(command.main(words, prog_name="bayesprune", standalone_mode=False, obj=started) or 0)
    except click.ClickException as problem:
        if first_of_several() or not isinstance(problem, click.UsageError):  # all were given the same words
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
