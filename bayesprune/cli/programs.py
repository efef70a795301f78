"""`bayesprune list` and `bayesprune copy`: what can be run, and how to make it your own."""

from __future__ import annotations

from pathlib import Path

import click

from bayesprune.cli.streams import quoted, tell
from bayesprune.errors import ProgramError
from bayesprune.files import write_atomically
from bayesprune.programs import Kind, Program, available, find

HEADINGS: dict[Kind, str] = {
    "models": "Models (what is learnt):  bayesprune run NAME",
    "inference": "Inference (how it is learnt):  bayesprune run MODEL --inference NAME",
}


@click.command("list")
def list_command() -> None:
    """List the models and inference procedures that ship."""
    programs = {kind: available(kind) for kind in HEADINGS}
    width = max((len(program.name) for found in programs.values() for program in found), default=0)
    for kind, heading in HEADINGS.items():
        tell(heading)
        for program in programs[kind]:
            tell(f"  {program.name:<{width}}  {program.description}".rstrip())
        tell("")
    tell("Make one your own:  bayesprune copy NAME mine.py")


@click.command("copy")
@click.argument("program", metavar="PROGRAM")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
def copy_command(program: str, file: Path) -> None:
    """Copy a program to FILE, to read and change. A file that exists is never overwritten."""
    source = find(program)
    target = file / f"{source.name}.py" if file.is_dir() else file
    if target.suffix != ".py":
        raise ProgramError(f"{target}: a program is a .py file. Write {target}.py.")
    if not target.parent.is_dir():
        raise ProgramError(f"{target}: there is no folder {target.parent}. Make it first, or copy elsewhere.")
    if target.exists() or target.is_symlink():
        raise ProgramError(f"{target}: exists already, and is left as it is. Choose another name.")
    write_atomically(target, source.path.read_bytes())
    tell(f"Copied {source.name} to {target}. Change it, then run it with:  {_command(source, target)}")


def _command(source: Program, target: Path) -> str:
    path = quoted(target if target.is_absolute() else f"./{target}")
    return (
        f"bayesprune run MODEL --inference {path}"
        if source.path.parent.name == "inference"
        else f"bayesprune run {path}"
    )
