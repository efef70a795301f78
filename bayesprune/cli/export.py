"""`bayesprune export`: the pruned network of a run, for use elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from bayesprune.cli.streams import in_python, quoted, tell
from bayesprune.errors import RunFolderError
from bayesprune.export import ARCHITECTURE, example_of, export, load
from bayesprune.files import read_json
from bayesprune.runs import RESULT, RUN


@click.command("export")
@click.argument("run_folder", metavar="RUN_FOLDER", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
def export_command(run_folder: Path, out: Path) -> None:
    """Write the pruned network of a run to OUT: a file *.onnx, or a folder that bayesprune.load() reads.

    \b
    bayesprune export runs/lenet5-digits lenet5.onnx
    bayesprune export runs/lenet5-mnist/seed-3 deployed/
    """
    source = pruned_folder(run_folder)
    if out.exists():
        raise RunFolderError(f"{out}: exists already, and is left as it is. Choose another name.")
    network = load(source)
    export(network, out, example_of(source, dtype=next(network.parameters()).dtype))
    tell(
        f"Exported to {out}."
        if out.is_file()
        else f"Exported to {out}. Load it with:  bayesprune.load({in_python(out)})"
    )


def pruned_folder(run_folder: Path) -> Path:
    """The folder with the network: the run's own, or a seed's.

    Args:
        run_folder: that the user named.

    Raises:
        RunFolderError: there is none, or there are several; they are named.
    """
    if not run_folder.is_dir():
        raise RunFolderError(
            f"{run_folder}: there is no such folder. Give the folder that 'bayesprune run' named."
        )
    if (run_folder / ARCHITECTURE).is_file():
        return run_folder
    seeds = sorted(folder.parent for folder in run_folder.glob(f"seed-*/{ARCHITECTURE}"))
    if seeds:
        listed = "\n".join(f"  {seed}{_error(seed)}" for seed in seeds)
        raise RunFolderError(
            f"{run_folder}: holds the networks of several seeds. Name one of them:\n{listed}"
        )
    if (run_folder / RUN).is_file():
        raise RunFolderError(
            f"{run_folder}: this run has not finished, so there is no pruned network yet. Continue it with:\n"
            f"  {quoted('bayesprune', 'run', '--resume', '--out', run_folder)}"
        )
    raise RunFolderError(
        f"{run_folder}: is not the folder of a run. Give the folder that 'bayesprune run' named."
    )


def _error(seed: Path) -> str:
    try:
        return f"  ({float(read_json(seed / RESULT)['test_error_percent']):.2f} % test error)"
    except (RunFolderError, ValueError, KeyError, TypeError):
        return ""
