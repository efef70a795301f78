"""`bayesprune run`: train and prune a program, seed by seed, into a folder that can be resumed."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click
import pyro

from bayesprune.certify import TrainingRows
from bayesprune.cli import baseline as baselines
from bayesprune.cli import finished
from bayesprune.cli import folder as folders
from bayesprune.cli import job as jobs
from bayesprune.cli.budgets import budget_of, check_exclusive, parse_budget
from bayesprune.cli.calibration import TRAINING_ROWS
from bayesprune.cli.diagnose import write_posterior
from bayesprune.cli.front import write_front_of
from bayesprune.cli.gains import write_gains
from bayesprune.cli.job import Job
from bayesprune.cli.measure import history, measure, over_seeds
from bayesprune.cli.prices import parse_price
from bayesprune.cli.processes import Together, together
from bayesprune.cli.settings import Settings, versions
from bayesprune.cli.streams import complain, quoted, tell
from bayesprune.cli.summary import summary
from bayesprune.cli.trust import Trust, trust_option
from bayesprune.errors import ProgramError
from bayesprune.export import check_savable, save
from bayesprune.files import read_json, write_atomically, write_json
from bayesprune.gated import GatedModel
from bayesprune.programs import run_own
from bayesprune.runs import posterior_files
from bayesprune.svi import FitResult
from bayesprune.svi.threads import asked_threads, threads_for, using_threads

COUNT = click.IntRange(1, 10**9)
"""Of epochs, rows or seeds: more is a slip of the finger, and would end in an overflow."""
SEEDS = 2**32
"""NumPy has so many."""
SEED = click.IntRange(0, SEEDS - 1)
THREADS = click.IntRange(1, max(8, 4 * (os.cpu_count() or 1)))
"""Far more than there are cores ends the process inside PyTorch."""


class Interruption(click.ClickException):
    """The user stopped a run: what is kept, and how to go on."""

    exit_code = 130

    def show(self, file: Any = None) -> None:
        """Print the message, below the progress bar."""
        complain(f"\n{self.message}")


@click.command("run")
@click.argument("program", metavar="PROGRAM", required=False)
@click.option(
    "--inference", metavar="NAME", help="How it is learnt: a name or ./file.py.  [default: the model's]"
)
@click.option(
    "--data",
    metavar="digits|digits-32|digits-tokens|mnist|DIR",
    help="What it learns from; DIR holds IDX files, or CIFAR-10's binary ones.  [default: digits]",
)
@click.option("--data-dir", metavar="DIR", help="Where the MNIST files lie, for --data mnist.")
@click.option("--epochs", type=COUNT, help="Passes over the training rows.  [default: the model's]")
@click.option("--batch-size", type=COUNT, help="Rows a step.  [default: the model's]")
@click.option("--seeds", type=COUNT, default=1, show_default=True, help="How many runs.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the first run.")
@click.option(
    "--price",
    metavar="NATS",
    callback=parse_price,
    help="What a unit must earn to stay, in nats: 12, or conv1=3,fc*=8.  [default: the model's]",
)
@click.option(
    "--budget",
    metavar="LIMITS",
    callback=parse_budget,
    help="What shall be left of the cost, instead of prices: macs=0.1, params=0.05, or both by a comma; "
    "milliseconds or megabytes of a pass, latency_ms=2,batch=64 or memory_mb=20,batch=64; and, where sizes "
    "are to be held, uniform, multiple_of=8.",
)
@click.option(
    "--calibration",
    metavar="SHARE",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.1,
    show_default=True,
    help="Share of the training rows that is kept apart, for 'bayesprune certify'; 0 trains on all.",
)
@click.option(
    "--baseline",
    is_flag=True,
    help="Train beside it, for comparison: the dense network, a small dense one of the same cost, and one "
    "that is pruned by magnitude.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=THREADS, help="CPU threads.  [default: by the size of a step]")
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The run's folder.  [default: runs/PROGRAM-DATA]",
)
@click.option("--resume", is_flag=True, help="Continue an interrupted run with the settings in its folder.")
@trust_option
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.pass_context
def run_command(
    ctx: click.Context,
    /,
    out: Path | None,
    resume: bool,
    quiet: bool,
    trusted: tuple[Path, ...],
    **options: Any,
) -> None:
    """Train PROGRAM and prune it while it learns.

    PROGRAM is a name from 'bayesprune list', or a file of your own, such as ./mine.py. The run's folder
    receives result.json, pruned.safetensors and architecture.json, history.json,
    posterior.nc, evidence.json, of small networks front.json, gates.png, report.html,
    checkpoints, and digests of the rows that were trained on.

    \b
    bayesprune run lenet5 --data digits
    bayesprune run lenet5 --data mnist --seeds 5 --out runs/five
    bayesprune run --resume --out runs/five
    bayesprune run ./mine.py --resume --out runs/mine-digits
    torchrun --nproc-per-node 2 -m bayesprune run lenet5

    A run of a file of your own is resumed by naming the file again: a folder that names one does not make it
    run. Processes that torchrun starts learn together, each on its share of every batch.
    """  # fmt: skip
    if not options["program"] and not (resume and out):
        raise click.UsageError(
            "Name a PROGRAM ('bayesprune list' shows them), or a run to continue: --resume --out DIR."
        )
    check_exclusive(options["price"], options["budget"])
    last = options["seed"] + options["seeds"] - 1
    if last >= SEEDS:
        raise click.UsageError(
            f"--seed {options['seed']} --seeds {options['seeds']}: the last seed would be {last}, and the "
            f"largest there is is {SEEDS - 1}. Take a smaller --seed."
        )
    said = click.core.ParameterSource.COMMANDLINE
    given = {name for name in options if ctx.get_parameter_source(name) is said and options[name] is not None}
    asked = jobs.absolute(Settings(**{**options, "program": options["program"] or ""}))
    with together() as processes, ExitStack() as stack:

        def ready() -> Job:
            if not resume:
                return jobs.begin(asked, out, quiet, stack)
            trust = Trust.of(trusted, (asked.program, asked.inference))
            return jobs.resume(asked, given, out, quiet, trust, stack)

        job = _ready(processes, ready)
        try:
            with asked_threads(job.settings.threads):
                _run_seeds(job, processes, ctx.obj or time.perf_counter())
        except KeyboardInterrupt:
            raise _interruption(job) from None


def _ready(processes: Together, ready: Callable[[], Job]) -> Job:
    """The run made ready: by the first process, and by the others as it tells them."""
    own: list[Job] = []

    def make() -> dict[str, Any]:
        own.append(ready())
        return jobs.to_others(own[0])

    told = processes.first(make)
    if not own:
        warnings.simplefilter("ignore")  # the first process has the same to say
        own.append(jobs.follow(told))
    processes.agree({**own[0].digests, "device": own[0].device})
    return own[0]


def _run_seeds(job: Job, processes: Together, started: float) -> None:
    """All seeds, but for those that have finished before; then the figures over them, and the report."""
    settings = job.settings
    figures: list[dict[str, Any]] = []
    for number, seed in enumerate(range(settings.seed, settings.seed + settings.seeds), start=1):
        folder = folders.seed_folder(job.folder, settings, seed)
        found = processes.first(partial(_finished, job, folder))
        if settings.seeds > 1:
            job.say(f"Seed {seed} ({number} of {settings.seeds}){': finished before' if found else ''}")
        figures.append(found or _run_seed(job, processes, seed, folder))
    processes.first(partial(_conclude, job, figures, started))


def _conclude(job: Job, figures: list[dict[str, Any]], started: float) -> None:
    """Write what is over all seeds, and tell it."""
    settings = job.settings
    result = {
        "program": job.model.name,
        "inference": job.inference.name,
        "data": job.data.name,
        "price": settings.price,
        "budget": settings.budget,
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "device": job.device,
        "versions": versions(),
        **over_seeds(figures),
        **baselines.over_seeds(figures),
        "seeds": figures,
    }
    TrainingRows.of(job.data.train.x).write(job.folder / TRAINING_ROWS)
    _report(job, result)
    write_json(job.folder / folders.RESULT, result)  # last: it says that all the rest is there
    if not job.quiet:
        seconds = time.perf_counter() - started
        tell(summary(result, job.folder, own=job.model.own, seconds=seconds))


def _report(job: Job, result: dict[str, Any]) -> None:
    from bayesprune.report.reading import Run  # here: Matplotlib takes long to import
    from bayesprune.report.write import NAME, build

    run = Run(job.folder, result, read_json(job.folder / folders.RUN), tuple(posterior_files(job.folder)))
    write_atomically(job.folder / NAME, build([run]))


def _finished(job: Job, folder: Path) -> dict[str, Any] | None:
    """Figures of a seed that has finished, with all of its files as it left them."""
    if not (folder / folders.RESULT).is_file() and not (folder / finished.FILES).is_file():
        return None
    lost = finished.lost(folder)
    if not lost:
        return finished.figures_of(folder)
    told = ", ".join(f"{name} {what}" for name, what in lost.items())
    job.say(f"{folder}: {told}. Made again from the last checkpoint; what was changed is kept beside it.")
    finished.put_aside(folder, [name for name, what in lost.items() if what == "was changed"])
    return None


def _run_seed(job: Job, processes: Together, seed: int, folder: Path) -> dict[str, Any]:
    """One seed, from its first step or its last checkpoint to its files; the figures are written last.

    Returns:
        The figures; none in a process that is not the first, whose part ends with the fit.
    """
    gated = _model(job, seed)
    threads = threads_for(gated.dense_macs, job.settings.batch_size or 1)
    with using_threads(threads):
        with baselines.Clock(folder, processes.total) as clock:
            result = _fit(job, gated, seed, folder / "checkpoints")
        if not processes.leads:
            return {}
        build = partial(_model, job)
        compare = partial(baselines.compared, job, seed, gated, build, clock)
        figures = {"seed": seed, "threads": threads, **_written(job, result, folder, compare)}
    if job.settings.seeds > 1:
        write_json(folder / folders.RESULT, figures)
    return figures


def _written(
    job: Job,
    result: FitResult,
    folder: Path,
    compare: Callable[[FitResult, dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """Write what a seed leaves; its figures, with those of its baselines where it has any."""
    from bayesprune.posterior.evidence import EVIDENCE  # here: ArviZ takes long to import
    from bayesprune.posterior.plots import plot_gates, save_figure  # here: Matplotlib takes long to import
    from bayesprune.selection.front import FRONT

    network, figures = measure(result, job.data.test)
    save(network, folder, job.data.test.x[:1])
    write_json(folder / finished.HISTORY, {"epochs": history(result.history)}, indent=None)
    save_figure(plot_gates(result), folder / finished.GATES)
    write_posterior(result, job.data.train, job.data.test, folder)
    write_gains(result, job.data.train, folder)
    write_front_of(result, job.data.train, job.data.test, folder)
    if job.settings.baseline:
        figures["baseline"] = compare(result, figures)
    finished.seal(folder, more=(EVIDENCE, FRONT, baselines.NAME))
    return figures


def _model(job: Job, seed: int) -> GatedModel:
    """The gated model of a seed, as its program builds it."""
    settings, train = job.settings, job.data.train
    pyro.set_rng_seed(seed)  # the network's first weights too
    gated = run_own(job.model, "model", lambda: job.model.model(train, job.data.classes, settings.price))
    if not isinstance(gated, GatedModel):
        raise ProgramError(
            f"{job.model.path}: model() returned {type(gated).__name__}, not a gated model. End it with\n"
            "    return bayesprune.gate(network, train.x[:1], prior=…, likelihood=…)"
        )
    if gated.network.structure.row is None:  # layers in a row are written as such
        check_savable(gated.network.structure.captured)  # now, not after hours of training
    if settings.budget is not None:
        gated = gated.with_prior(budget_of(settings.budget))
    return gated


def _fit(job: Job, gated: GatedModel, seed: int, checkpoints: Path) -> FitResult:
    settings, train = job.settings, job.data.train
    arguments = {
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "seed": seed,
        "recipe": job.model.recipe,
        "device": job.device,
        "checkpoint": checkpoints,
        "resume": True,  # where there are any
        "progress": not job.quiet,
    }
    result = run_own(job.inference, "infer", lambda: job.inference.infer(gated, train, **arguments))
    if not isinstance(result, FitResult):
        raise ProgramError(
            f"{job.inference.path}: infer() returned {type(result).__name__}, not a FitResult. End it with\n"
            "    return bayesprune.fit(gated, (train.x, train.y), …)"
        )
    return result


def _interruption(job: Job) -> Interruption:
    if not folders.has_progress(job.folder):
        return Interruption("Interrupted before the first epoch ended; nothing was kept.")
    own = [str(job.model.path)] if job.model.own else []
    own += ["--inference", str(job.inference.path)] if job.inference.own else []
    return Interruption(
        f"Interrupted. What was computed up to the last whole epoch is kept in {job.folder}. Continue with:\n"
        f"  {quoted('bayesprune', 'run', *own, '--resume', '--out', job.folder)}"
    )
