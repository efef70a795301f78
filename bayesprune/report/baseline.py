"""What the pruning cost: the pruned network beside those that were learnt for comparison."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bayesprune.report.commands import place
from bayesprune.report.headline import SCORES, figure, score_key
from bayesprune.report.reading import Run
from bayesprune.run_shapes import RIVALS

NAMES = {
    "pruned": ("Pruned", "while it learnt"),
    "dense": ("Dense", "the whole network, from the same first weights, without gates"),
    "small_dense": ("Small dense", "all widths cut to one share before learning, other first weights"),
    "magnitude": (
        "Magnitude",
        "dense for half of the steps, cut once by the norms of its units, then fine-tuned",
    ),
}


@dataclass(frozen=True)
class Comparison:
    """A run and what it was compared with.

    Attributes:
        place: folder of the run.
        rows: name of a column → cell, a row a network.
        sentence: what the figures say.
        refused: what there is not, and why.
    """

    place: str
    rows: list[dict[str, str]]
    sentence: str
    refused: list[str] = field(default_factory=list)


def comparisons(runs: Sequence[Run]) -> list[Comparison]:
    """One for each run that has been compared."""
    return [_comparison(run) for run in runs if all("baseline" in seed for seed in run.seeds)]


def _comparison(run: Run) -> Comparison:
    seeds = run.seeds
    reasons = [seed["baseline"]["refused"] for seed in seeds if "refused" in seed["baseline"]]
    if reasons:
        return Comparison(place(run.folder), [], "", reasons[:1])
    members = {"pruned": [_pruned(seed) for seed in seeds]}
    refused = []
    for name in RIVALS:
        found = [seed["baseline"][name] for seed in seeds]
        why = next((one["refused"] for one in found if "refused" in one), None)
        if why is None:
            members[name] = found
        else:
            refused.append(f"{NAMES[name][0]}: {why}")
    key = score_key(seeds[0])
    unit = SCORES.get(key or "", ("", ""))[1]
    rows = [_row(name, found, key, unit) for name, found in members.items()]
    return Comparison(place(run.folder), rows, _sentence(run, members, key), refused)


def _pruned(seed: dict[str, Any]) -> dict[str, Any]:
    shares = {f"{what}_percent": seed[f"{what}_kept_percent"] for what in ("parameters", "macs")}
    return {**seed, **shares, **seed["baseline"]["pruned"]}


def _row(name: str, found: Sequence[dict[str, Any]], key: str | None, unit: str) -> dict[str, str]:
    def cell(what: str, decimals: int, unit: str) -> str:
        known = all(what in one for one in found)
        return figure([one[what] for one in found], decimals, unit) if known else "not known"

    title, meaning = NAMES[name]
    return {
        "name": title,
        "meaning": meaning,
        "score": "–" if key is None else cell(key, 2, unit),
        "parameters": cell("parameters_percent", 2, " %"),
        "macs": cell("macs_percent", 2, " %"),
        "processor": cell("processor_seconds", 1, " s"),
        "seconds": cell("seconds", 1, " s"),
    }


def _sentence(run: Run, members: dict[str, list[dict[str, Any]]], key: str | None) -> str:
    """What pruning cost, and what else could have been had for it; lower scores are better."""
    if key is None:
        return ""
    name, unit = SCORES.get(key, (key.replace("_", " "), ""))
    mean = {who: statistics.fmean(one[key] for one in found) for who, found in members.items()}
    cost = run.seeds[0]["baseline"]["cost"]
    what = "MACs" if cost == "macs" else cost
    share = statistics.fmean(one[f"{cost}_percent"] for one in members["pruned"])
    said = [f"The pruned network has a {name} of {mean['pruned']:.2f}{unit} at {share:.2f} % of the {what}."]
    for who, called in (
        ("dense", "The dense network's"),
        ("small_dense", "That of a small dense network which costs no more"),
        ("magnitude", "That of the dense network pruned by magnitude"),
    ):
        if who in mean:
            said.append(f"{called} is {mean[who]:.2f}{unit}, {_than(mean[who] - mean['pruned'], unit)}.")
    return " ".join(said)


def _than(more: float, unit: str) -> str:
    if abs(more) < 0.005:
        return "the same"
    points = " points" if unit.strip() == "%" else ""
    return f"{abs(more):.2f}{points} {'more' if more > 0 else 'less'}"
