"""`bayesprune reproduce`: a table of the field, run again beside what was published."""

from __future__ import annotations

import json
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bayesprune.cli.streams import tell
from bayesprune.errors import SettingsError
from bayesprune.files import write_atomically

if TYPE_CHECKING:
    from bayesprune.reproduce import Curves, Table, Traced

NAME, RECORD = "table.md", "record.json"
COUNT = click.IntRange(1, 10**6)


@click.command("reproduce")
@click.argument("table", metavar="[TABLE]", required=False)
@click.option("--seeds", type=COUNT, default=5, show_default=True, help="Trainings of each method.")
@click.option("--quick", is_flag=True, help="On the digits, few epochs and two seeds: to see that it runs.")
@click.option("--epochs", type=COUNT, help="Of each training.  [default: the program's]")
@click.option(
    "--data-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where the table's data lie; of a table of several, the folder with mnist, fashion-mnist, cifar-10.",
)
@click.option(
    "--only",
    metavar="NAME",
    multiple=True,
    help="Of a table of curves: these parts or methods alone, by the names of their folders, or globs.",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="For its files; one that holds the table is gone on with.  [default: tables/TABLE]",
)
@click.option("--quiet", is_flag=True, help="Print the table alone.")
def reproduce_command(
    table: str | None,
    seeds: int,
    quick: bool,
    epochs: int | None,
    data_dir: Path | None,
    only: tuple[str, ...],
    out: Path | None,
    quiet: bool,
) -> None:
    """Run all methods of TABLE on the same rows, and print them beside what was published.

    Each method has settings to choose from, tried on held-out training rows at the first seed; then all
    seeds are learnt with the chosen one. A table of curves, as bmrs is, learns every setting by every seed,
    and compares methods at equal sizes. Every training is kept in DIR, so that the same command goes on
    where it was interrupted; the table itself is DIR/table.md. Of curves it is there after each training,
    and DIR/record.json holds all of them. Without TABLE, the tables are listed.

    \b
    bayesprune reproduce mnist-mlp --quick
    bayesprune reproduce mnist-lenet5 --data-dir ~/mnist --seeds 5
    bayesprune reproduce bmrs --data-dir ~/data --seeds 10 --only mlp-mnist
    """
    from bayesprune import reproduce as tables  # here: --help needs no PyTorch

    if table is None:
        for name, each in tables.TABLES.items():
            tell(f"{name:<14} {each.title}; {_extent(each)}")
        return
    if quick and data_dir is not None:
        raise SettingsError(
            "--quick learns the embedded digits, and --data-dir says where others lie: drop one."
        )
    chosen = tables.named(table)
    by_default = (
        click.get_current_context().get_parameter_source("seeds") is click.core.ParameterSource.DEFAULT
    )
    folder = out or Path("tables") / (f"{table}-quick" if quick else table)
    settings: dict[str, Any] = {
        "seeds": 2 if quick and by_default else seeds, "quick": quick, "epochs": epochs, "data_dir": data_dir,
        "say": (lambda line: None) if quiet else tell,
    }  # fmt: skip
    if isinstance(chosen, tables.Curves):

        def keep(traced: Traced) -> None:
            _write_record(folder / RECORD, tables.as_record(traced), only, settings)
            write_atomically(folder / NAME, tables.curves_as_markdown(traced))

        traced = tables.run_curves(chosen, folder, only=only, keep=keep, **settings)
        tell(tables.curves_as_text(traced))
        return
    if only:
        raise SettingsError(f"--only is of tables of curves, and {table} compares its methods: drop it.")
    found = tables.run_table(chosen, folder, **settings)
    write_atomically(folder / NAME, tables.as_markdown(found))
    tell(tables.as_text(found))


def _write_record(
    path: Path, results: dict[str, Any], only: tuple[str, ...], settings: dict[str, Any]
) -> None:
    """All trainings of curves, with the command; where data lay is nobody's affair."""
    words = ["bayesprune", "reproduce", results["table"], *(["--quick"] if settings["quick"] else [])]
    words += ["--data-dir", "DIR"] if settings["data_dir"] is not None else []
    words += ["--seeds", str(settings["seeds"])]
    words += ["--epochs", str(settings["epochs"])] if settings["epochs"] is not None else []
    words += [word for name in only for word in ("--only", name)]
    versions = {name: version(name) for name in ("bayesprune", "torch", "pyro-ppl")}
    content = {"command": shlex.join(words), "versions": versions, "results": results}
    write_atomically(path, json.dumps(content) + "\n")


def _extent(table: Table | Curves) -> str:
    methods = f"{len(table.methods)} methods"
    parts: tuple[Any, ...] = getattr(table, "parts", ())
    if parts:
        return f"{len(parts)} parts, {methods}"
    published: tuple[Any, ...] = getattr(table, "published", ())
    return f"{methods}, {len(published)} published rows"
