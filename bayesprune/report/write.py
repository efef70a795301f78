"""From the folders of runs to one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import bayesprune
from bayesprune.errors import RunFolderError
from bayesprune.export import ARCHITECTURE, read_architecture
from bayesprune.files import write_atomically
from bayesprune.posterior import Diagnosis, diagnose, join, read
from bayesprune.posterior.arviz import unwrap
from bayesprune.posterior.evidence import EVIDENCE, read_evidence
from bayesprune.report.baseline import comparisons
from bayesprune.report.certificates import certificate_rows
from bayesprune.report.commands import afterwards, checksums, page_again, place, reproduce
from bayesprune.report.drawing import Plot
from bayesprune.report.figures import plot_of_front, plot_of_gains, plots_of
from bayesprune.report.headline import cards
from bayesprune.report.reading import Run, read_runs
from bayesprune.report.svg import inline_svg
from bayesprune.report.tables import (
    diagnosis_rows,
    differing,
    group_rows,
    score_name,
    seed_rows,
    setting_rows,
    version_rows,
)
from bayesprune.selection.front import FRONT, read_front

NAME = "report.html"
TEMPLATE = "page.html.j2"
MOST_FRONTS = 3
"""Fits whose fronts are drawn into one plot."""


def write_report(
    folders: Sequence[str | Path],
    out: str | Path | None = None,
    force: bool = False,
    more: Sequence[Plot] = (),
    answers: Diagnosis | None = None,
) -> Path:
    """Write one HTML file about a run, or about several of the same network side by side.

    Args:
        folders: of finished runs, or of seeds.
        out: the file; by default ``report.html`` in the folder of the only run, or here for several.
        force: replace a file that is there.
        more: plots of your own, shown last, such as evidence against price: ``Plot(title, text, axes)``.
        answers: a diagnosis of your own. By default it is made from the draws that the runs left; one of the
            results of ``fit``, with training rows, can ask more.

    Returns:
        The file.

    Raises:
        RunFolderError: a folder is of no finished run, runs are of different networks, or the file is there
            and was not to be replaced. Nothing is written.
        PosteriorError: draws that cannot be read, are of another program, or do not fit together.
        CheckpointError: ``architecture.json`` was changed.
    """
    out = Path(out) if out is not None else Path(folders[0]) / NAME if len(folders) == 1 else Path(NAME)
    check_free(out, force)
    page = build(read_runs(folders), more, answers)
    write_atomically(out, page)
    return out


def check_free(out: Path, force: bool) -> None:
    """Make sure that a file can be written; nothing is.

    Raises:
        RunFolderError: it is there and was not to be replaced, or is a folder.
    """
    if out.is_dir():
        raise RunFolderError(f"{out}: is a folder. Name a file, such as {out / NAME}.")
    if out.exists() and not force:
        raise RunFolderError(
            f"{out}: exists already, and is left as it is. Choose another --out, or add --force."
        )


def build(runs: Sequence[Run], more: Sequence[Plot] = (), answers: Diagnosis | None = None) -> str:
    """The page as text.

    Args:
        runs: from ``read_runs``.
        more: plots of your own.
        answers: a diagnosis of your own.

    Raises:
        PosteriorError: draws that cannot be read, are of another program, or do not fit together.
    """
    container = join([read(file) for run in runs for file in run.files])
    groups = unwrap(container)
    labels = names_of(runs)
    shown = [*plots_of(container, groups, labels, _image(runs[0])), *_weighed(runs, labels)]
    shown += [*_cut(runs, labels), *more]
    return render(runs, labels, answers or diagnose(container), groups, shown)


def render(
    runs: Sequence[Run], labels: Sequence[str], answers: Diagnosis, groups: Any, shown: Sequence[Plot]
) -> str:
    """Fill the template; every value in it is escaped."""
    seeds = [seed for run in runs for seed in run.seeds]
    apart = differing(runs)
    environment = Environment(
        loader=PackageLoader("bayesprune.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(TEMPLATE).render(
        programs=list(dict.fromkeys(f"{run.result['program']} on {run.result['data']}" for run in runs)),
        fits=len(seeds),
        cards=cards(seeds, answers, not apart),
        answers=diagnosis_rows(answers),
        certificates=certificate_rows(runs),
        compared=comparisons(runs),
        groups=group_rows(seeds, groups),
        seeds=seed_rows(labels, seeds, not apart),
        score=score_name(seeds),
        differing=apart,
        plots=[_plot(number, plot) for number, plot in enumerate(shown)],
        folders=[place(run.folder) for run in runs],
        settings=setting_rows(runs),
        versions=version_rows(runs),
        commands=[(place(run.folder), reproduce(run), afterwards(run), checksums(run)) for run in runs],
        again=page_again(runs),
        made_by=bayesprune.__version__,
    )


def names_of(runs: Sequence[Run]) -> list[str]:
    """What each fit is called: by its seed, and by its folder where there are several."""
    names = []
    for run in runs:
        where = place(run.folder)
        seeds = [f"seed {seed['seed']}" for seed in run.seeds]
        names += seeds if len(runs) == 1 else [where] if len(seeds) == 1 else [f"{where} {s}" for s in seeds]
    return names


def _plot(number: int, plot: Plot) -> dict[str, Any]:
    whole = plot.axes.figure.canvas.figure  # of a subfigure too
    label = f"Plot. {plot.title}. {plot.text}"
    return {
        "title": plot.title,
        "text": plot.text,
        "small": plot.small,
        "svg": Markup(inline_svg(whole, number, label)),
    }


def _weighed(runs: Sequence[Run], labels: Sequence[str]) -> list[Plot]:
    """Evidence against price of the first fit, where the runs have it; older ones have not."""
    tables = [file.parent / EVIDENCE for run in runs for file in run.files]
    return [plot_of_gains(read_evidence(tables[0]), labels)] if tables[0].is_file() else []


def _cut(runs: Sequence[Run], labels: Sequence[str]) -> list[Plot]:
    """Error against cost of the first fits that have it; older runs and large networks have not."""
    files = [file.parent / FRONT for run in runs for file in run.files]
    there = [(read_front(file), label) for file, label in zip(files, labels, strict=True) if file.is_file()]
    some = there[:MOST_FRONTS]
    return [plot_of_front([front for front, _ in some], [label for _, label in some])] if some else []


def _image(run: Run) -> tuple[int, ...]:
    """Shape of a row of the inputs; empty where the pruned network's description does not say it."""
    for file in run.files:
        if (file.parent / ARCHITECTURE).is_file():
            told = read_architecture(file.parent)
            inputs = told.get("inputs") or [{}]
            return tuple(told.get("input_shape") or inputs[0].get("shape") or ())
    return ()
