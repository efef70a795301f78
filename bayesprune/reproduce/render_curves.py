"""Curves as text for the terminal, as Markdown, and as a record that both can be made from again."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bayesprune.errors import RunFolderError
from bayesprune.files import read_json
from bayesprune.reproduce.cells import FIGURES, NOTES, aligned, figures, numbers, piped, without_empty
from bayesprune.reproduce.curves import Runs, Traced, errors_at, fronts
from bayesprune.reproduce.run import LEARNT
from bayesprune.reproduce.setup import Learnt
from bayesprune.reproduce.table import Curves, Part
from bayesprune.schema import Items, Number, Record, Text, check
from bayesprune.schema import Table as ByName

SETTINGS = ("method", "setting", "seeds", "held-out error %", "on the front", *FIGURES)
HOW = (
    "Each method's networks of those settings that no other one of it beats in both mean size and mean error "
    "on the held-out rows are joined, seed by seed, by lines of test error over the logarithm of the size; a "
    "size between two of them is read off there, and a larger one has the largest network's error. In "
    "brackets: what the error is above that of the first method, mean ± standard deviation over seeds. – is "
    "where some seed has no network so small."
)
RECORDED = Record(
    {
        "table": Text(),
        "epochs": ByName(Number(least=1, whole=True)),
        "data": ByName(Text()),
        "left_out": Items(Text()),
        "runs": ByName(ByName(ByName(ByName(LEARNT)))),
    }
)


def curves_as_text(found: Traced) -> str:
    """For a terminal.

    Args:
        found: the curves, as far as they were run.
    """
    return "\n\n".join(_parts(found, aligned, lambda heading: heading))


def curves_as_markdown(found: Traced, level: int = 1) -> str:
    """For a page.

    Args:
        found: the curves, as far as they were run.
        level: of the headings.
    """
    return "\n\n".join(_parts(found, piped, lambda heading: f"{'#' * level} {heading}")) + "\n"


Rows = Sequence[Sequence[str]]


def _parts(found: Traced, table: Callable[[Rows], str], heading: Callable[[str], str]) -> list[str]:
    parts = []
    for name, runs in found.runs.items():
        seeds = max((len(by) for values in runs.values() for by in values.values()), default=0)
        on = found.data[name]
        told = f"{name}: {found.epochs[name]} epochs on {on}, {seeds} seed{'s' * (seeds != 1)}"
        parts += [heading(told), table(_at_equal_sizes(found, runs)), table(_settings(found, runs))]
    notes = [HOW, *NOTES, found.curves.note, *found.left_out]
    return [*parts, "\n".join(f"- {note}" for note in notes if note)]


def _at_equal_sizes(found: Traced, runs: Runs) -> list[tuple[str, ...]]:
    """A line for each method: its error at each share of the parameters."""
    shares = found.curves.shares
    head = ("method, test error % at most at", *(f"{share:g} % of the parameters" for share in shares))
    at = {share: errors_at(runs, share) for share in shares}
    first = next(iter(runs))
    return [head, *((name, *(_cell(at[share], name, first) for share in shares)) for name in runs)]


def _cell(errors: dict[str, dict[int, float]], name: str, first: str) -> str:
    if name not in errors:
        return "–"
    mean = f"{statistics.fmean(errors[name].values()):.2f}"
    pairs = [error - errors[first][s] for s, error in errors[name].items() if s in errors.get(first, {})]
    if name == first or not pairs:
        return mean
    above = statistics.fmean(pairs)
    return f"{mean} ({above:+.2f}{f' ± {statistics.stdev(pairs):.2f}' if len(pairs) > 1 else ''})"


def _settings(found: Traced, runs: Runs) -> list[tuple[str, ...]]:
    """A line for each setting of each method, as other tables have them."""
    kept, dense = fronts(runs), next(iter(runs.get("dense", {}).values()), {})
    lines: list[tuple[str, ...]] = [SETTINGS]
    setting = {method.name: method.setting for method in found.curves.methods}
    for method, values in runs.items():
        for value, by in values.items():
            held_out = [one.held_out_error for one in by.values() if one.held_out_error is not None]
            lines.append(
                (
                    method, f"{setting[method]} {value:g}", str(len(by)),
                    numbers(held_out) if held_out else "–",
                    "yes" if value in kept[method] else "no", *figures(by, dense),
                )
            )  # fmt: skip
    return without_empty(lines, "sections removed")


# ---- as a record


def as_record(found: Traced) -> dict[str, Any]:
    """All trainings as plain values, for one JSON file.

    Args:
        found: the curves, as far as they were run.
    """
    runs = {
        part: {
            method: {
                f"{value:g}": {str(seed): asdict(learnt) for seed, learnt in by.items()}
                for value, by in values.items()
            }
            for method, values in methods.items()
        }
        for part, methods in found.runs.items()
    }
    return {
        "table": found.curves.name, "epochs": found.epochs, "data": found.data, "left_out": found.left_out,
        "runs": runs,
    }  # fmt: skip


def read_record(path: Path | str, curves: Curves) -> Traced:
    """Curves from a file of ``as_record``'s values, alone or under the key ``results``.

    Args:
        path: the file.
        curves: whose they are.

    Raises:
        RunFolderError: it cannot be read, or is of other curves.
    """
    content = read_json(path)
    content = content.get("results", content)
    check(content, RECORDED, path, RunFolderError)
    methods = {method.name for method in curves.methods}
    strange = [name for of in content["runs"].values() for name in of if name not in methods]
    if content["table"] != curves.name or strange:
        raise RunFolderError(
            f"{path}: holds {content['table']!r} with {', '.join(strange[:3]) or 'its methods'}, not "
            f"{curves.name!r} as it is now. Run it again."
        )
    runs, of = content["runs"], (content["epochs"], content["data"])
    if any(part not in names for names in of for part in runs):
        raise RunFolderError(f"{path}: epochs or data lack a part that was run. It was changed.")
    try:
        traced = {part: {name: _numbered(values) for name, values in by.items()} for part, by in runs.items()}
    except ValueError as problem:
        raise RunFolderError(f"{path}: a setting or seed is no number ({problem}). It was changed.") from None
    parts = tuple(Part("", "", "") for _ in runs)
    return Traced(replace(curves, parts=parts), *of, traced, content["left_out"])


def _numbered(values: dict[str, dict[str, Any]]) -> dict[float, dict[int, Learnt]]:
    return {
        float(value): {int(seed): Learnt(**learnt) for seed, learnt in by.items()}
        for value, by in values.items()
    }
