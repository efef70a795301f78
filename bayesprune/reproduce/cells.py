"""What tables print of trainings, cell by cell, and how cells become lines."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from bayesprune.reproduce.setup import Learnt

FIGURES = (
    "units kept", "parameters %", "MACs %", "error %, last", "error %, best epoch", "NLL",
    "training ÷ dense, MACs", "time ÷ dense", "undecided", "sections removed",
)  # fmt: skip
NOTES = (
    "Last is the last epoch's test error, and best the lowest of all epochs', as much of the field reports "
    "it: the test rows choose it, less may have been pruned then, and nothing here goes by it.",
    "Parameters of the rows that were run count biases too; of published ones, weights alone.",
    "Training counts a step as three forward passes of the network as it then was, without what gates add.",
    "Time is of the processor, of trainings one after another; with it goes what scoring the epochs took.",
)


def figures(runs: Mapping[int, Learnt], dense: Mapping[int, Learnt]) -> tuple[str, ...]:
    """Cells under ``FIGURES``: means over seeds, and standard deviations where there are several.

    Args:
        runs: seed → training.
        dense: seed → training of the dense twin, as far as there is one.
    """
    all_ = list(runs.values())
    scored = [one.best for one in all_ if one.best is not None]
    twins = [(one, dense[seed]) for seed, one in runs.items() if seed in dense]
    gone = [one.sections[1] - one.sections[0] for one in all_ if one.sections is not None]
    return (
        architecture(all_),
        spread(all_, lambda one: 100 * one.parameters / one.dense_parameters),
        spread(all_, lambda one: 100 * one.macs / one.dense_macs),
        spread(all_, lambda one: one.error),
        numbers(scored) if len(scored) == len(all_) else "–",
        spread(all_, lambda one: one.nll, digits=3),
        numbers([one.training_macs / twin.training_macs for one, twin in twins]) if twins else "–",
        numbers([one.processor_seconds / twin.processor_seconds for one, twin in twins]) if twins else "–",
        "–" if any(one.undecided is None for one in all_) else str(max(one.undecided or 0 for one in all_)),
        f"{', '.join(map(str, gone))} of {all_[0].sections[1]}" if gone and all_[0].sections else "–",
    )


def without_empty(rows: Sequence[Sequence[str]], column: str) -> list[tuple[str, ...]]:
    """Lines without a column that says nothing.

    Args:
        rows: with the names of columns first.
        column: its name.
    """
    at = rows[0].index(column)
    if any(row[at] != "–" for row in rows[1:]):
        return [tuple(row) for row in rows]
    return [(*row[:at], *row[at + 1 :]) for row in rows]


def architecture(runs: Sequence[Learnt]) -> str:
    """Mean units of each group, ``143-70-51``.

    Args:
        runs: of one method.
    """
    if not all(one.kept for one in runs):
        return "–"
    groups = [[len(one.kept[name]) for one in runs] for name in runs[0].kept]
    return "-".join(f"{statistics.fmean(counts):.0f}" for counts in groups)


def spread(runs: Sequence[Learnt], figure: Callable[[Learnt], float], digits: int = 2) -> str:
    """Mean of a figure, and standard deviation where there are several.

    Args:
        runs: trainings.
        figure: of one.
        digits: behind the point.
    """
    return numbers([figure(one) for one in runs], digits)


def numbers(values: Sequence[float], digits: int = 2) -> str:
    """Mean, and standard deviation where there are several.

    Args:
        values: one at least.
        digits: behind the point.
    """
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Lines for a terminal.

    Args:
        rows: of as many cells each.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def piped(rows: Sequence[Iterable[str]]) -> str:
    """Lines of Markdown.

    Args:
        rows: of as many cells each, the names of columns first.
    """
    head, *rest = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|---" * len(list(rows[0])) + "|", *rest])
