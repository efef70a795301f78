"""`bayesprune certify`: a certificate for a run's network, and whether one is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bayesprune.certify import Certificate, verify
from bayesprune.certify.losses import LOSSES, Loss, Selective, loss_from
from bayesprune.certify.paths import NAMES as NAMES_OF_PATHS
from bayesprune.certify.pvalues import NAMES
from bayesprune.certify.rows import REPEATS
from bayesprune.certify.rules import RULES, MultiStart, Rule, rule_from
from bayesprune.certify.shape import FORMAT
from bayesprune.cli import folder as folders
from bayesprune.cli.calibration import rows_of, unseen
from bayesprune.cli.certify_order import ORDERS
from bayesprune.cli.certify_run import CERTIFICATE, REFERENCE, certify_run
from bayesprune.cli.export import pruned_folder
from bayesprune.cli.job import data_of
from bayesprune.cli.streams import quoted, tell
from bayesprune.cli.trust import Trust, trust_option
from bayesprune.errors import CertificateError, RunFolderError
from bayesprune.export import load

NO = 1
PATHS = (*NAMES_OF_PATHS, *ORDERS)


FILE = click.Path(path_type=Path)


@click.command("certify")
@click.argument("places", metavar="RUN | FILE NETWORK DATA", nargs=-1, required=True)
@click.option("--verify", "check", is_flag=True, help="Recompute the certificate FILE: true or false?")
@click.option(
    "--alpha",
    type=float,
    multiple=True,
    default=(0.05,),
    show_default=True,
    help="The risk that is allowed; of several losses one for each, or one for all.",
)
@click.option("--delta", type=float, default=0.05, show_default=True, help="How often it may fail.")
@click.option(
    "--loss",
    type=click.Choice([*LOSSES]),
    multiple=True,
    default=("error",),
    show_default=True,
    help="Given again, all of these risks are bounded at once.",
)
@click.option("--confidence", type=float, help="From which on a row counts, for --loss selective.  [0.9]")
@click.option("--coverage", type=float, help="Share of rows to be confident on, for --loss selective.  [0]")
@click.option(
    "--path",
    type=click.Choice(PATHS),
    default="magnitude",
    show_default=True,
    help="What goes first: small weights, over all layers or layer by layer; or whole units, those of small "
    "weights, of low inclusion probability, or of little evidence.",
)
@click.option(
    "--output", metavar="NAME", help="Which output of a network of several is meant: its name, or number."
)
@click.option("--p-value", type=click.Choice(NAMES), help="[binomial for 0/1 losses, else betting]")
@click.option("--rule", type=click.Choice([*RULES]), default="fixed-sequence", show_default=True)
@click.option("--starts", type=int, help="Places of the path to begin at, for --rule multi-start.  [4]")
@click.option(
    "--rows",
    metavar="FILE|DATA",
    help="Other rows than the run kept: x and y in a safetensors file, or the test rows of a data set.",
)
@click.option(
    "--repeats",
    type=click.Choice(REPEATS),
    default="refuse",
    show_default=True,
    help="Rows that equal an earlier one: refuse them; count them once, as copies; or each, as draws of "
    "their own.",
)
@click.option("--data-dir", metavar="DIR", help="Where the MNIST files lie.")
@click.option("--out", metavar="DIR", type=FILE, help="[default: RUN/certificate]")
@click.option("--sign", "key", metavar="KEY.pem", type=FILE, help="Sign it with an Ed25519 key.")
@click.option("--public-key", metavar="KEY.pem", type=FILE, help="With --verify: who is to have signed.")
@click.option(
    "--reference",
    metavar="FOLDER",
    type=FILE,
    help="With --verify: the network before pruning.  [default: reference/ beside FILE]",
)
@trust_option
@click.option("--quiet", is_flag=True, help="Print nothing but errors; the exit code answers.")
@click.pass_context
def certify_command(
    ctx: click.Context,
    /,
    places: tuple[str, ...],
    check: bool,
    quiet: bool,
    trusted: tuple[Path, ...],
    **options: Any,
) -> None:
    """Prune the network of RUN as far as its risk stays below alpha, with probability 1 - delta.

    The rows that show it are those that the run kept apart (bayesprune run --calibration). RUN/certificate
    receives certificate.json, the certified network, and the one that it was pruned from. The exit code is 0
    where a network is certified, 1 where none is.

    With --verify, FILE is recomputed from the folder NETWORK and from DATA: a data set, a run's folder, or a
    safetensors file. The exit code is 0 where it is true, 1 where it is false. No Python file that a folder
    names is executed, unless --trust-program names it.

    \b
    bayesprune certify runs/lenet5-mnist --alpha 0.02
    bayesprune certify --verify certificate.json runs/lenet5-mnist/certificate mnist
    """  # fmt: skip
    if check:
        if len(places) != 3:
            raise click.UsageError("--verify takes three things: FILE NETWORK DATA.")
        answer = _verify(
            *places,
            reference=options["reference"],
            public_key=options["public_key"],
            data_dir=options["data_dir"],
            trust=Trust.of(trusted),
        )
        if not quiet:
            tell(answer)
        ctx.exit(0 if answer else NO)
    if len(places) != 1:
        raise click.UsageError("Name one RUN; to check a certificate: --verify FILE NETWORK DATA.")
    options["loss"] = _losses(options["loss"], options["confidence"], options["coverage"])
    options["alpha"] = options["alpha"][0] if len(options["alpha"]) == 1 else options["alpha"]
    options["rule"] = _rule(options["rule"], options["starts"])
    out, found = certify_run(Path(places[0]), quiet, options, Trust.of(trusted))
    if not quiet:
        tell(f"{found}\n\nThe certificate is {out / CERTIFICATE}." + _check_it(out, places[0], found))
    ctx.exit(0 if found.certified else NO)


def _losses(names: tuple[str, ...], confidence: float | None, coverage: float | None) -> Loss | list[Loss]:
    given = {"confidence": confidence, "coverage": coverage}
    settings = {key: value for key, value in given.items() if value is not None}
    if settings and Selective.name not in names:
        raise click.UsageError(f"--{next(iter(settings))} goes with --loss selective alone.")
    found = [loss_from({"name": name, **(settings if name == Selective.name else {})}) for name in names]
    return found[0] if len(found) == 1 else found


def _rule(name: str, starts: int | None) -> Rule:
    if starts is not None and name != MultiStart.name:
        raise click.UsageError(f"--starts goes with --rule {MultiStart.name} alone.")
    return rule_from(name) if starts is None else MultiStart(starts)


def _check_it(out: Path, run: str, found: Certificate) -> str:
    if not found.certified:
        return ""
    rows = run if found.record["calibration"]["split"] != {} else "DATA"
    command = quoted("bayesprune", "certify", "--verify", out / CERTIFICATE, out, rows)
    return f" Check it with:\n  {command}"


def _verify(
    file: str,
    network: str,
    data: str,
    *,
    reference: Path | None,
    public_key: Path | None,
    data_dir: str | None,
    trust: Trust,
) -> Any:
    path = certificate_file(file)
    certificate, reference = Certificate.read(path), reference_of(path, reference)
    return verify(
        certificate,
        load(pruned_folder(Path(network))),
        _rows(data, data_dir, dict(certificate.record["calibration"].get("split", {})), trust),
        reference=None if reference is None else load(pruned_folder(reference)),
        public_key=public_key,
    )


def certificate_file(given: str) -> Path:
    """The file of a certificate, or the one in a folder.

    Args:
        given: by the user.

    Raises:
        CertificateError: there is none.
    """
    path = Path(given) / CERTIFICATE if Path(given).is_dir() else Path(given)
    if not path.is_file():
        raise CertificateError(f"{path}: there is no such file. Give a {FORMAT}: certificate.json.")
    return path


def reference_of(path: Path, given: Path | None) -> Path | None:
    """The folder of the network that was pruned: as given, or where it lies beside its certificate.

    Args:
        path: of the certificate.
        given: by the user.
    """
    beside = path.parent / REFERENCE
    return beside if given is None and beside.is_dir() else given


def _rows(data: str, data_dir: str | None, split: dict[str, Any], trust: Trust) -> Any:
    """Of a run's folder, by the run; else of a data set or a file."""
    folder = Path(data)
    for place in (folder, folder.parent):
        if (place / folders.RUN).is_file():
            return _rows_of_run(place, split, trust)
    return rows_of(data, data_dir, split)


def _rows_of_run(folder: Path, split: dict[str, Any], trust: Trust) -> Any:
    _, whole = data_of(folder, trust)
    if split.get("of") == "test":
        return whole.test
    kept = unseen(whole, float(split.get("share", 0.0)), int(split.get("seed", 0))).rows
    if kept is None:
        raise RunFolderError(
            f"{folder}: the certificate does not rest on rows of this run. Give its rows as a safetensors "
            "file."
        )
    return kept
