"""A table as text for the terminal, and as Markdown, with what was published beside what was run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from bayesprune.reproduce.methods import Learnt
from bayesprune.reproduce.published import Published
from bayesprune.reproduce.run import Reproduced

HEADER = (
    "method", "units kept", "parameters %", "MACs %", "error %, last", "error %, best epoch", "NLL",
    "training ÷ dense, MACs", "time ÷ dense", "undecided", "setting",
)  # fmt: skip
PUBLISHED = (
    "published", "units kept", "parameters %", "MACs %", "error %, last", "error %, best epoch", "code",
    "source",
)  # fmt: skip
NOTES = (
    "Last is the last epoch's test error, and best the lowest of all epochs', as much of the field reports "
    "it: the test rows choose it, and nothing here goes by it.",
    "Parameters of the rows that were run count biases too; of published ones, weights alone.",
    "Training counts a step as three forward passes of the network as it then was, without what gates add.",
    "Time is of the processor, of trainings one after another; with it goes what scoring the epochs took.",
)


def as_text(found: Reproduced) -> str:
    """For a terminal.

    Args:
        found: the table, as far as it was run.
    """
    parts = [_heading(found), _aligned([HEADER, *_ours(found)])]
    if found.table.published:
        parts.append(_aligned([PUBLISHED, *map(_theirs, found.table.published)]))
    return "\n\n".join([*parts, "\n".join(NOTES)])


def as_markdown(found: Reproduced) -> str:
    """For a page.

    Args:
        found: the table, as far as it was run.
    """
    parts = [f"# {_heading(found)}", _piped([HEADER, *_ours(found)])]
    if found.table.published:
        parts.append(published_as_markdown(found.table.published))
    if found.tried:
        rows = [
            (name, f"{value:g}", f"{error:.2f}", f"{size:.2f}", "chosen" * (value == found.chosen[name]))
            for name, values in found.tried.items()
            for value, (error, size) in values.items()
        ]  # fmt: skip
        parts.append(_piped([("method", "setting", "held-out error %", "parameters %", ""), *rows]))
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in NOTES)]) + "\n"


def published_as_markdown(rows: Iterable[Published]) -> str:
    """Rows of papers alone.

    Args:
        rows: of them.
    """
    return _piped([PUBLISHED, *map(_theirs, rows)])


def _heading(found: Reproduced) -> str:
    seeds = max((len(runs) for runs in found.runs.values()), default=0)
    rows = found.data if found.data != found.table.data else ""
    where = f", on the {rows} instead" if rows else ""
    return f"{found.table.title}{where}: {found.epochs} epochs, {seeds} seed{'s' * (seeds != 1)}"


def _ours(found: Reproduced) -> list[tuple[str, ...]]:
    dense = found.runs.get("dense", {})
    return [
        _line(method.name, method.setting, found, runs, dense)
        for method in found.table.methods
        if (runs := found.runs.get(method.name))
    ]


def _line(
    name: str, setting: str, found: Reproduced, runs: dict[int, Learnt], dense: dict[int, Learnt]
) -> tuple[str, ...]:
    all_ = list(runs.values())
    scored = [one.best for one in all_ if one.best is not None]
    twins = [(one, dense[seed]) for seed, one in runs.items() if seed in dense]
    many = len(next(m.settings for m in found.table.methods if m.name == name)) > 1
    return (
        name,
        _architecture(all_),
        _spread(all_, lambda one: 100 * one.parameters / one.dense_parameters),
        _spread(all_, lambda one: 100 * one.macs / one.dense_macs),
        _spread(all_, lambda one: one.error),
        _numbers(scored) if len(scored) == len(all_) else "–",
        _spread(all_, lambda one: one.nll, digits=3),
        _numbers([one.training_macs / twin.training_macs for one, twin in twins]) if twins else "–",
        _numbers([one.processor_seconds / twin.processor_seconds for one, twin in twins]) if twins else "–",
        "–" if any(one.undecided is None for one in all_) else str(max(one.undecided or 0 for one in all_)),
        f"{setting} {found.chosen[name]:g}" if many else "–",
    )


def _theirs(row: Published) -> tuple[str, ...]:
    best = f"{row.error:g}" if row.epoch != "last" else "–"
    last = f"{row.last:g}" if row.last is not None else f"{row.error:g}" if row.epoch == "last" else "–"
    edges = "" if row.edges is None else f", {100 * row.edges:g} % of the edges"
    start = "" if row.dense[:2] in ((784, 300), (20, 50)) else f" of {'-'.join(map(str, row.dense))}"
    return (
        row.method, f"{row.architecture}{start}{edges}", f"{row.parameters_percent:.2f}",
        f"{row.macs_percent:.2f}", last, best if row.epoch else f"{best} (epoch not said)", row.code,
        row.source,
    )  # fmt: skip


def _architecture(runs: Sequence[Learnt]) -> str:
    """Mean units of each group, ``143-70-51``."""
    if not all(one.kept for one in runs):
        return "–"
    groups = [[len(one.kept[name]) for one in runs] for name in runs[0].kept]
    return "-".join(f"{statistics.fmean(counts):.0f}" for counts in groups)


def _spread(runs: Sequence[Learnt], figure: Callable[[Learnt], float], digits: int = 2) -> str:
    return _numbers([figure(one) for one in runs], digits)


def _numbers(values: Sequence[float], digits: int = 2) -> str:
    """Mean, and standard deviation where there are several."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _piped(rows: Sequence[Iterable[str]]) -> str:
    head, *rest = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|---" * len(list(rows[0])) + "|", *rest])
