"""`bayesprune diagnose`: is the mask of these runs converged, and can it be trusted?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bayesprune.cli.streams import tell
from bayesprune.data import Split
from bayesprune.runs import POSTERIOR, posterior_files
from bayesprune.svi import FitResult

if TYPE_CHECKING:
    from bayesprune.posterior import Diagnosis

DRAWS, ROWS = 1000, 1000
DRAWS_OF_WEIGHTS, ROWS_FOR_WEIGHTS = 200, 200  # each draw of weights is a network of its own to run
NOT_CONVERGED = 1


@click.command("diagnose")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.pass_context
def diagnose_command(ctx: click.Context, runs: tuple[Path, ...]) -> None:
    """Say whether the mask of RUN is converged: optimised, decided, reproducible, faithful, calibrated.

    RUN is the folder of a run, or of one of its seeds. Several are taken as independent fits of one network;
    four are needed to say whether the result is reproducible. The exit code is 0 where the mask is optimised
    and decided and no answer is no, else 1.

    \b
    bayesprune diagnose runs/lenet5-mnist
    bayesprune diagnose runs/a runs/b runs/c runs/d
    """
    from bayesprune.posterior import diagnose, join, read  # here: ArviZ takes long to import

    files = [file for run in runs for file in posterior_files(run)]
    answers = diagnose(join([read(file) for file in files]))
    tell(answers)
    ctx.exit(0 if converged(answers) else NOT_CONVERGED)


def converged(answers: Diagnosis) -> bool:
    """Whether the mask has come to rest, is decided, and nothing that could be asked speaks against it."""
    return answers.converged


def write_posterior(result: FitResult, train: Split, test: Split, folder: Path) -> None:
    """Write the draws of a fit, with their predictions of rows it has not seen, into a run's folder.

    Args:
        result: of the fit.
        train: training rows, by a thousand of which it is asked what further steps would gain.
        test: held-out rows; the first thousand are predicted.
        folder: of the run or seed.
    """
    from bayesprune.posterior import write
    from bayesprune.posterior.diagnose.still import with_gain

    weights = bool(result.gated.log_scales_by_tensor())
    rows = ROWS_FOR_WEIGHTS if weights else ROWS
    sampled = result.samples is not None  # all that a sampler knows
    draws = result.posterior("decision" if sampled else "end").to_arviz(
        draws=DRAWS_OF_WEIGHTS if weights else DRAWS, rows=(test.x[:rows], test.y[:rows]), observed=True
    )
    if any(math.isfinite(epoch.elbo) for epoch in result.history):  # by steps, which might be too few
        draws = with_gain(draws, result.gated, (train.x, train.y))
    write(draws, folder / POSTERIOR, overwrite=True)
