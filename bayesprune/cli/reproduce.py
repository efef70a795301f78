"""`bayesprune reproduce`: a table of the field, run again beside what was published."""

from __future__ import annotations

from pathlib import Path

import click

from bayesprune.cli.streams import tell
from bayesprune.errors import SettingsError
from bayesprune.files import write_atomically

NAME = "table.md"
COUNT = click.IntRange(1, 10**6)


@click.command("reproduce")
@click.argument("table", metavar="[TABLE]", required=False)
@click.option("--seeds", type=COUNT, default=5, show_default=True, help="Trainings of each method.")
@click.option("--quick", is_flag=True, help="On the digits, few epochs and two seeds: to see that it runs.")
@click.option("--epochs", type=COUNT, help="Of each training.  [default: the program's]")
@click.option("--data-dir", metavar="DIR", type=click.Path(path_type=Path), help="Where MNIST lies.")
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
    out: Path | None,
    quiet: bool,
) -> None:
    """Run all methods of TABLE on the same rows, and print them beside what was published.

    Each method has settings to choose from, tried on held-out training rows at the first seed; then all
    seeds are learnt with the chosen one. Every training is kept in DIR, so that the same command goes on
    where it was interrupted; the table itself is DIR/table.md. Without TABLE, the tables are listed.

    \b
    bayesprune reproduce mnist-mlp --quick
    bayesprune reproduce mnist-lenet5 --data-dir ~/mnist --seeds 5
    """
    from bayesprune import reproduce as tables  # here: --help needs no PyTorch

    if table is None:
        for name, each in tables.TABLES.items():
            tell(
                f"{name:<14} {each.title}; {len(each.methods)} methods, {len(each.published)} published rows"
            )
        return
    if quick and data_dir is not None:
        raise SettingsError(
            "--quick learns the embedded digits, and --data-dir says where MNIST lies: drop one."
        )
    chosen = tables.named(table)
    quick_seeds = (
        click.get_current_context().get_parameter_source("seeds") is click.core.ParameterSource.DEFAULT
    )
    folder = out or Path("tables") / (f"{table}-quick" if quick else table)
    found = tables.run_table(
        chosen, folder, seeds=2 if quick and quick_seeds else seeds, quick=quick, epochs=epochs,
        data_dir=data_dir, say=(lambda line: None) if quiet else tell,
    )  # fmt: skip
    write_atomically(folder / NAME, tables.as_markdown(found))
    tell(tables.as_text(found))
