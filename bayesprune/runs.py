"""A run's folder as whoever reads it finds it: which files are where. Nothing is imported that takes long."""

from __future__ import annotations

from pathlib import Path

from bayesprune.errors import RunFolderError

RUN = "run.json"
RESULT = "result.json"
POSTERIOR = "posterior.nc"
SEED = "seed-"


def seed_folders(run: Path, file: str) -> list[Path]:
    """Folders of a run's seeds that have a file, in the order of the seeds.

    Args:
        run: a folder.
        file: its name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as run:
        ...     for seed in (10, 2):
        ...         folder = Path(run) / f"seed-{seed}"
        ...         folder.mkdir()
        ...         (folder / RESULT).touch()
        ...     [folder.name for folder in seed_folders(Path(run), RESULT)]
        ['seed-2', 'seed-10']
    """
    found = [path.parent for path in run.glob(f"{SEED}*/{file}")]
    return sorted(found, key=lambda folder: (len(folder.name), folder.name))


def check_folder(run: Path) -> None:
    """Make sure that a run's folder is there.

    Raises:
        RunFolderError: it is not.
    """
    if not run.is_dir():
        raise RunFolderError(f"{run}: there is no such folder. Give the folder that 'bayesprune run' named.")


def posterior_files(run: Path) -> list[Path]:
    """The draws in a run's folder, or in those of its seeds.

    Args:
        run: a folder.

    Raises:
        RunFolderError: there is no folder, or it has none; what to do is said.
    """
    check_folder(run)
    own = run / POSTERIOR
    found = [own] if own.is_file() else [folder / POSTERIOR for folder in seed_folders(run, POSTERIOR)]
    if not found:
        raise RunFolderError(
            f"{run}: has no {POSTERIOR}: the run has not finished, was made by an older version, or this is "
            f"no run's folder. Continue it with --resume, or run the program again."
        )
    return found
