"""`bayesprune report`: a run as one HTML file to read and to hand on."""

from __future__ import annotations

from pathlib import Path

import click

from bayesprune.cli.streams import tell


@click.command("report")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The file.  [default: RUN/report.html; ./report.html for several]",
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def report_command(runs: tuple[Path, ...], out: Path | None, force: bool) -> None:
    """Write one HTML file about RUN: how small, how good, how sure, plots, and how to make it again.

    RUN is the folder of a finished run, or of one of its seeds; several, of the same network, are shown side
    by side. The file needs nothing else: it opens by a double click, offline, on a phone too.

    \b
    bayesprune report runs/lenet5-mnist
    bayesprune report runs/a runs/b --out both.html
    """
    from bayesprune.report import write_report  # here: ArviZ and Matplotlib take long to import

    written = write_report(runs, out, force)
    tell(f"Written to {written} ({written.stat().st_size / 1e6:.1f} MB). Open it in a browser.")
