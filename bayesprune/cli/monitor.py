"""`bayesprune monitor`: new rows against a certificate that was shipped."""

from __future__ import annotations

from pathlib import Path

import click

from bayesprune.certify import Certificate
from bayesprune.certify.monitor import Monitor
from bayesprune.cli import folder as folders
from bayesprune.cli.calibration import rows_of
from bayesprune.cli.certify import FILE, NO, certificate_file, reference_of
from bayesprune.cli.export import pruned_folder
from bayesprune.cli.streams import tell
from bayesprune.errors import CertificateError
from bayesprune.export import load

STATE = "monitor.json"


@click.command("monitor")
@click.argument("file", metavar="FILE")
@click.argument("network", metavar="NETWORK")
@click.argument("data", metavar="DATA")
@click.option("--state", type=FILE, metavar="FILE", help=f"[default: {STATE} beside the certificate]")
@click.option(
    "--delta", type=float, help="How often it may say so without need; of a new state.  [default: 0.05]"
)
@click.option("--tolerance", type=float, help="How much above alpha is no harm yet; of a new state.  [0]")
@click.option(
    "--reference",
    metavar="FOLDER",
    type=FILE,
    help="The network before pruning, for losses that compare with it.  [default: reference/ beside FILE]",
)
@click.option("--data-dir", metavar="DIR", help="Where the MNIST files lie.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors; the exit code answers.")
@click.pass_context
def monitor_command(
    ctx: click.Context,
    file: str,
    network: str,
    data: str,
    state: Path | None,
    delta: float | None,
    tolerance: float | None,
    reference: Path | None,
    data_dir: str | None,
    quiet: bool,
) -> None:
    """Count new rows against the certificate FILE of the folder NETWORK: has it expired?

    DATA are rows that were not counted before: x and y in a safetensors file, or the test rows of a data set.
    What was seen so far is kept in the state's file, so that the answer may be asked for after every row:
    where the risk is still what was certified, it is wrong with probability delta at most, ever. The exit
    code is 0 where there is no sign that the certificate has expired, 1 where it has.

    \b
    bayesprune monitor runs/lenet5-mnist/certificate runs/lenet5-mnist/certificate today.safetensors
    """  # fmt: skip
    path = certificate_file(file)
    certificate = Certificate.read(path)
    kept = state or path.parent / STATE
    with folders.sole_use(kept.parent):
        before = _begun(kept, certificate, delta, tolerance)
        whole = reference_of(path, reference)
        after = before.watch(
            load(pruned_folder(Path(network))),
            rows_of(data, data_dir, {} if data.endswith(".safetensors") else {"of": "test"}),
            reference=None if whole is None else load(pruned_folder(whole)),
        )
        after.write(kept)
    if not quiet:
        tell(f"{after}\n\nThe state is {kept}.")
    ctx.exit(NO if after.expired else 0)


def _begun(kept: Path, certificate: Certificate, delta: float | None, tolerance: float | None) -> Monitor:
    """The state that was kept, or a new one."""
    if not kept.exists():
        return Monitor.of(certificate, 0.05 if delta is None else delta, tolerance or 0.0)
    if delta is not None or tolerance is not None:
        raise CertificateError(
            f"{kept}: was begun already, and its levels stay as they are: leave --delta and --tolerance "
            "out, or name another --state."
        )
    return Monitor.read(kept, certificate)
