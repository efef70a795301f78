"""A table as text for the terminal, and as Markdown, with what was published beside what was run."""

from __future__ import annotations

from collections.abc import Iterable

from bayesprune.reproduce.cells import FIGURES, NOTES, aligned, figures, piped, without_empty
from bayesprune.reproduce.published import Published
from bayesprune.reproduce.run import Reproduced
from bayesprune.reproduce.setup import Learnt

HEADER = ("method", *FIGURES, "setting")
PUBLISHED = (
    "published", "units kept", "parameters %", "MACs %", "error %, last", "error %, best epoch", "code",
    "source",
)  # fmt: skip


def as_text(found: Reproduced) -> str:
    """For a terminal.

    Args:
        found: the table, as far as it was run.
    """
    parts = [_heading(found), aligned(_ours(found))]
    if found.table.published:
        parts.append(aligned([PUBLISHED, *map(_theirs, found.table.published)]))
    return "\n\n".join([*parts, "\n".join(_notes(found))])


def as_markdown(found: Reproduced) -> str:
    """For a page.

    Args:
        found: the table, as far as it was run.
    """
    parts = [f"# {_heading(found)}", piped(_ours(found))]
    if found.table.published:
        parts.append(published_as_markdown(found.table.published))
    if found.tried:
        rows = [
            (name, f"{value:g}", f"{error:.2f}", f"{size:.2f}", "chosen" * (value == found.chosen[name]))
            for name, values in found.tried.items()
            for value, (error, size) in values.items()
        ]  # fmt: skip
        parts.append(piped([("method", "setting", "held-out error %", "parameters %", ""), *rows]))
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in _notes(found))]) + "\n"


def published_as_markdown(rows: Iterable[Published]) -> str:
    """Rows of papers alone.

    Args:
        rows: of them.
    """
    return piped([PUBLISHED, *map(_theirs, rows)])


def _heading(found: Reproduced) -> str:
    seeds = max((len(runs) for runs in found.runs.values()), default=0)
    rows = found.data if found.data != found.table.data else ""
    where = f", on the {rows} instead" if rows else ""
    return f"{found.table.title}{where}: {found.epochs} epochs, {seeds} seed{'s' * (seeds != 1)}"


def _ours(found: Reproduced) -> list[tuple[str, ...]]:
    dense = found.runs.get("dense", {})
    lines = [
        _line(method.name, method.setting, found, runs, dense)
        for method in found.table.methods
        if (runs := found.runs.get(method.name))
    ]
    return without_empty([HEADER, *lines], "sections removed")


def _notes(found: Reproduced) -> list[str]:
    return [note for note in (*NOTES, found.table.note, *found.left_out) if note]


def _line(
    name: str, setting: str, found: Reproduced, runs: dict[int, Learnt], dense: dict[int, Learnt]
) -> tuple[str, ...]:
    many = len(next(m.settings for m in found.table.methods if m.name == name)) > 1
    return (name, *figures(runs, dense), f"{setting} {found.chosen[name]:g}" if many else "–")


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
