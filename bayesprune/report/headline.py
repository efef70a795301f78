"""The first screen: how small, how good, how sure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bayesprune.posterior.diagnose import Diagnosis

SCORES = {
    "test_error_percent": ("test error", " %"),
    "test_rmse": ("test RMSE", ""),
    "test_deviance": ("test deviance", ""),
}
BY_EVIDENCE = {"decided": "decided by evidence"}  # where the clock decides, no gate is undecided either
UNFAITHFUL = "certain but unfaithful"


@dataclass(frozen=True)
class Card:
    """One of the three answers.

    Attributes:
        question: the heading.
        value: the figure, or the word, that answers it.
        unit: what the figure is of.
        lines: what else belongs to it.
    """

    question: str
    value: str
    unit: str
    lines: tuple[str, ...]


def figure(values: Sequence[float], decimals: int = 2, unit: str = "", alike: bool = True) -> str:
    """A mean, with the sample standard deviation where there are several values.

    Args:
        values: one a fit.
        decimals: to show.
        unit: written after it.
        alike: whether the fits are repetitions; of others a mean says nothing, and the range is given.

    Example:
        >>> figure([3.0]), figure([1.0, 2.0], unit=" %"), figure([1.0, 2.0], alike=False)
        ('3.00', '1.50 ± 0.71 %', '1.00 to 2.00')
    """
    if not alike and len(values) > 1:
        return f"{min(values):,.{decimals}f} to {max(values):,.{decimals}f}{unit}"
    spread = f" ± {statistics.stdev(values):,.{decimals}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):,.{decimals}f}{spread}{unit}"


def cards(seeds: Sequence[dict[str, Any]], answers: Diagnosis, alike: bool = True) -> list[Card]:
    """How small, how good, how sure.

    Args:
        seeds: figures of each fit.
        answers: to the five questions.
        alike: whether the fits are repetitions, of the same settings.
    """
    return [_small(seeds, alike), _good(seeds, alike), _sure(seeds, answers)]


def _small(seeds: Sequence[dict[str, Any]], alike: bool) -> Card:
    left = {}
    for what in ("parameters", "macs"):
        kept = [s[f"{what}_kept"] for s in seeds]
        count = figure([statistics.fmean(kept)] if alike else kept, 0, alike=alike)
        share = figure([s[f"{what}_kept_percent"] for s in seeds], unit=" %", alike=alike)
        left[what] = share, f"{count} of {seeds[0][f'dense_{what}']:,}"
    (parameters, counted), (macs, multiplied) = left["parameters"], left["macs"]
    lines = (f"{counted} parameters", f"{macs} of the multiply-accumulates of a row: {multiplied}")
    return Card("How small?", parameters, "of the dense network's parameters are left", lines)


def _good(seeds: Sequence[dict[str, Any]], alike: bool) -> Card:
    lines = []
    if all("test_nll" in s for s in seeds):
        nll = figure([s["test_nll"] for s in seeds], 4, alike=alike)
        lines.append(f"{nll} nats a row: negative log-likelihood")
    key = score_key(seeds[0])
    if key is None:
        return Card("How good?", "unknown", "the run kept no test score", tuple(lines))
    name, unit = SCORES.get(key, (key.replace("_", " "), ""))
    compared = all("baseline" in s for s in seeds)
    dense = "see what the pruning cost" if compared else "the dense network was not trained for comparison"
    lines.append(f"On rows that it did not learn from; {dense}.")
    return Card("How good?", figure([s[key] for s in seeds], 2, unit, alike), name, tuple(lines))


def score_key(seed: dict[str, Any]) -> str | None:
    """The key of a seed's test score; None where there is none."""
    keys = [key for key in seed if key.startswith("test_") and key != "test_nll"]
    return next((key for key in SCORES if key in keys), keys[0] if keys else None)


def _sure(seeds: Sequence[dict[str, Any]], answers: Diagnosis) -> Card:
    fits, several = len(seeds), len(seeds) > 1
    undecided, rounded = (max(s[key] for s in seeds) for key in ("undecided_gates", "rounded_gates"))
    total = sum(seeds[0]["dense_architecture"])
    most = "at most " if several else ""
    lines = [
        f"{most}{undecided:,g} of {total:,} gates are undecided" if undecided else "every gate is at 0 or 1",
        f"{most}{rounded:,g} of {total:,} were put at the nearer vertex when time was up" if rounded else "",
        _agreement(answers, fits),
    ]
    value, unit = verdict(answers)
    return Card("How sure?", value, unit, tuple(line for line in lines if line))


def verdict(answers: Diagnosis) -> tuple[str, str]:
    """The mask in a word, and why."""
    if UNFAITHFUL in answers.faithful.why.lower():
        return "Certain, but unfaithful", "the guide is sure of this mask, and the posterior is not"
    if answers.converged:
        return "Converged", "the mask is at rest and decided, and nothing that was asked speaks against it"
    names = [BY_EVIDENCE.get(a.question, a.question) for a in answers.problems]
    if names:
        return "Not converged", "it is not " + _listed(names)
    missing = [a.question for a in (answers.optimised, answers.decided) if a.verdict == "not asked"]
    return "Unknown", f"what says whether it is {_listed(missing)} is missing"


def _agreement(answers: Diagnosis, fits: int) -> str:
    if answers.reproducible.verdict == "not asked":
        alone = "one fit alone" if fits == 1 else f"{fits} fits"
        return f"{alone}: whether independent fits agree is asked of four or more"
    agree = "agree" if answers.reproducible.verdict == "yes" else "do not agree"
    return f"{fits} fits {agree}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
