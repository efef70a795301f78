"""The command `bayesprune`, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

import bayesprune
from bayesprune.cli.certify import certify_command
from bayesprune.cli.diagnose import diagnose_command
from bayesprune.cli.export import export_command
from bayesprune.cli.programs import copy_command, list_command
from bayesprune.cli.report import report_command
from bayesprune.cli.run import run_command
from bayesprune.errors import BayespruneError, BudgetWarning, CertificateWarning, EmptyGroupWarning

USER_ERROR = 2
INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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
        Exit code: 0, 2 for what the user can mend, 130 for an interruption.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*ArviZ is undergoing", category=FutureWarning)
        warnings.showwarning = _show_warning
        return _run(words)


def _run(words: list[str]) -> int:
    try:
        return int(command.main(words, prog_name="bayesprune", standalone_mode=False) or 0)
    except click.ClickException as problem:
        problem.show()
        return problem.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    except BrokenPipeError:  # 'bayesprune list | head': the reader has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (BayespruneError, OSError, MemoryError, RuntimeError) as problem:
        message = _message(problem)
        if message is None or "--debug" in words:
            raise
        click.echo(f"Error: {message}", err=True)
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
    click.echo(f"Warning: {place}{message}", err=True)


def _message(problem: Exception) -> str | None:
    """What to tell the user, or None for a fault of the library, whose traceback is worth a report."""
    if isinstance(problem, BayespruneError):
        return str(problem)
    if isinstance(problem, OSError) and problem.strerror:
        place = f"{problem.filename}: " if problem.filename else ""
        return f"{place}{problem.strerror}. Check that the place can be read and written, and has room."
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return "out of memory. Take a smaller --batch-size, or --device cpu."
    return None
