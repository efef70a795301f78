"""From a run's folder to a certificate: its network, its rows, its path."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from torch import nn

from bayesprune.certify import (
    CalibrationRows,
    Certificate,
    TrainingRows,
    certify,
    hash_of_network,
    sign,
)
from bayesprune.cli import folder as folders
from bayesprune.cli.calibration import SPLIT_SEED, TRAINING_ROWS, rows_of, unseen
from bayesprune.cli.certify_order import ORDERS
from bayesprune.cli.export import pruned_folder
from bayesprune.cli.job import data_of
from bayesprune.cli.trust import Trust
from bayesprune.errors import CertificateError, RunFolderError
from bayesprune.export import ARCHITECTURE, TENSORS, load, save
from bayesprune.files import is_temporary, sweep
from bayesprune.lock import LOCK
from bayesprune.rows import Inputs

CERTIFICATE, FOLDER, REFERENCE = "certificate.json", "certificate", "reference"
OWN = [name for file in (TENSORS, ARCHITECTURE) for name in (file, f"{REFERENCE}/{file}")]
"""Files that are written before the certificate."""


def certify_run(run: Path, quiet: bool, options: dict[str, Any], trust: Trust) -> tuple[Path, Certificate]:
    """Certify the network of a run; write it, the one that it was pruned from, and last the certificate.

    Args:
        run: a run's folder, or a seed's.
        quiet: no progress bar.
        options: of the command line.
        trust: programs that may be executed, where the run's data come from one.

    Returns:
        The folder of the certificate, and the certificate.

    Raises:
        BayespruneError: the run, its rows or the settings cannot be used; nothing was written.
        OSError: the folder cannot be written; nothing is left in it.
    """
    source = pruned_folder(run)
    out = options["out"] or source / FOLDER
    _check_free(out)
    with folders.sole_use(out):
        _check_free(out)  # nobody can come in between now
        sweep(out)
        try:
            return out, _certified(source, out, quiet, options, trust)
        except BaseException:
            _give_back(out)
            raise


def _check_free(out: Path) -> None:
    """A new folder, an empty one, or what a command that was killed left of its work: its lock tells."""
    if not out.exists() and not out.is_symlink():
        return
    if out.is_dir():
        names = {str(path.relative_to(out)) for path in _files(out) if not is_temporary(path)}
        if not names or names == {LOCK} or (LOCK in names and names <= {LOCK, *OWN}):
            return
    raise RunFolderError(f"{out}: exists already, and is left as it is. Choose another --out.")


def _files(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.is_symlink() or not path.is_dir()]


def _give_back(out: Path) -> None:
    """Take back what was written; the true error is on its way, and nothing is raised here."""
    with contextlib.suppress(OSError):
        for name in OWN:
            (out / name).unlink(missing_ok=True)
        (out / REFERENCE).rmdir()


def _certified(source: Path, out: Path, quiet: bool, options: dict[str, Any], trust: Trust) -> Certificate:
    folder = source if (source / folders.RUN).is_file() else source.parent
    rows, split = _rows(folder, options["rows"], options["data_dir"], options["repeats"], trust)
    network = load(source)
    known = folder / TRAINING_ROWS
    found = certify(
        network,
        rows,
        alpha=options["alpha"],
        delta=options["delta"],
        path=ORDERS[options["path"]](source) if options["path"] in ORDERS else options["path"],
        loss=options["loss"],
        p_value=options["p_value"],
        rule=options["rule"],
        output=_part(options["output"]),
        trained_on=TrainingRows.read(known) if known.is_file() and not rows.known else None,
        progress=not quiet,
    )
    if found.network is not None:
        _write(found.network, out, rows.x[:1])
        _write(network, out / REFERENCE, rows.x[:1])
    record = found.certificate.record
    certificate = Certificate({**record, "calibration": {**record["calibration"], "split": split}})
    if options["key"] is not None:
        certificate = sign(certificate, options["key"])
    certificate.write(out / CERTIFICATE)  # last: it says that all the rest is there
    return certificate


def _part(given: str | None) -> str | int | None:
    """A number of an output, or its name."""
    return int(given) if given is not None and given.removeprefix("-").isdecimal() else given


def _rows(
    folder: Path, other: str | None, data_dir: str | None, repeats: str, trust: Trust
) -> tuple[CalibrationRows, dict[str, Any]]:
    """The rows, and how they are taken from their data again."""
    if other is not None:
        split = {} if other.endswith(".safetensors") else {"of": "test"}
        return CalibrationRows.of(rows_of(other, data_dir, split), repeats), split
    if not (folder / folders.RUN).is_file():
        raise RunFolderError(
            f"{folder}: is not the folder of a run. Give the folder that 'bayesprune run' named."
        )
    settings, data = data_of(folder, trust)
    kept = unseen(data, settings.calibration)
    if kept.rows is None:
        raise CertificateError(
            f"{folder}: this run trained on all of its training rows, and kept none to certify with. Give "
            "rows that it has never seen, --rows FILE, or run it again with --calibration 0.1."
        )
    known = "kept apart by the run, before it trained on the others"
    if kept.left_out:
        known += f"; {kept.left_out} that equal a training row all the same are left out"
    if not len(kept.rows):
        raise CertificateError(
            f"{folder}: every row that this run kept apart equals one that it trained on: its data repeat "
            "themselves. Give rows that it has never seen, --rows FILE."
        )
    rows = CalibrationRows.of(CalibrationRows(kept.rows.x, kept.rows.y, known), repeats)
    return rows, {"of": "train", "share": settings.calibration, "seed": SPLIT_SEED}


def _write(network: nn.Module, folder: Path, example: Inputs) -> None:
    save(network, folder, example)
    if hash_of_network(load(folder), example) != hash_of_network(network, example):
        raise CertificateError(
            f"{folder}: the network that was read back is not the one that was written, so that a "
            "certificate could not be checked. Certify it in Python, bp.certify(...)."
        )
