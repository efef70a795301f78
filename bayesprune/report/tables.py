"""The tables of a report: five answers, units kept in each group, seeds, settings, versions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bayesprune.posterior.arviz import Groups
from bayesprune.posterior.diagnose import Diagnosis
from bayesprune.report.headline import SCORES, figure, score_key
from bayesprune.report.reading import Run

MEANING = {
    "optimised": "Have the bound and the gates come to rest?",
    "decided": "Is every gate nearly certain, by evidence and not by the clock?",
    "reproducible": "Do independent fits agree?",
    "faithful": "Is what the guide says true of the network and of the posterior?",
    "calibrated": "Are the probabilities the exact ones?",
}
MARKS = {True: ("✓", "holds"), False: ("✗", "does not hold"), None: ("·", "told only")}
Row = dict[str, Any]


def diagnosis_rows(answers: Diagnosis) -> list[Row]:
    """One row a question: verdict, reason, measures, next step."""
    rows = []
    for answer in answers.answers:
        measures = [
            {
                "mark": MARKS[m.holds][0],
                "said": MARKS[m.holds][1],
                "text": _measure(m.name, m.value, m.threshold),
            }
            for m in answer.measures
        ]
        nothing = answer.next in ("", "nothing")
        rows.append(
            {
                "question": answer.question,
                "meaning": MEANING.get(answer.question, ""),
                "verdict": answer.verdict,
                "why": _sentence(answer.why.removeprefix("not asked: ")),
                "measures": measures,
                "next": "Nothing." if nothing else _sentence(answer.next),
            }
        )
    return rows


def group_rows(seeds: Sequence[Row], groups: Groups) -> list[Row]:
    """One row a group: units kept of all, over fits; what a unit costs in the dense network."""
    constant = groups["constant_data"]
    places = {str(name): number for number, name in enumerate(constant["group"].values)}
    rows = []
    for number, name in enumerate(seeds[0]["groups"]):
        kept = [seed["architecture"][number] for seed in seeds]
        size = seeds[0]["dense_architecture"][number]
        per_unit = {"parameters": "–", "macs": "–"}
        if name in places:
            for what in per_unit:
                per_unit[what] = f"{int(constant[f'{what}_per_unit'].values[places[name]]):,}"
        share = 100 * sum(kept) / len(kept) / max(size, 1)
        rows.append(
            {"name": name, "kept": spread(kept), "size": f"{size:,}", "share": f"{share:.1f} %"} | per_unit
        )
    return rows


def seed_rows(labels: Sequence[str], seeds: Sequence[Row], alike: bool = True) -> list[Row]:
    """One row a fit, and the mean and standard deviation last of several that are repetitions."""
    key = score_key(seeds[0])
    unit = SCORES.get(key or "", ("", ""))[1]

    def row(label: str, members: Sequence[Row]) -> Row:
        return {
            "name": label,
            "score": figure([s[key] for s in members], 2, unit) if key else "–",
            "parameters": figure([s["parameters_kept_percent"] for s in members], 2, " %"),
            "macs": figure([s["macs_kept_percent"] for s in members], 2, " %"),
            "units": "-".join(str(n) for n in members[0]["architecture"]) if len(members) == 1 else "",
            "undecided": f"{max(s['undecided_gates'] for s in members):,g}",
            "rounded": f"{max(s['rounded_gates'] for s in members):,g}",
            "seconds": figure([s["seconds"] for s in members], 1, " s"),
        }

    rows = [row(label, [seed]) for label, seed in zip(labels, seeds, strict=True)]
    return rows + ([row("mean ± standard deviation", seeds)] if len(seeds) > 1 and alike else [])


def score_name(seeds: Sequence[Row]) -> str:
    """What the test score is called, for a table's heading."""
    key = score_key(seeds[0])
    name = "score" if key is None else SCORES.get(key, (key.replace("_", " "), ""))[0]
    return name[:1].upper() + name[1:]


def setting_rows(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Name of a setting → its value in each run; paths without their folders, which are nobody's business."""
    asked = [_asked(run) for run in runs]
    names = list(dict.fromkeys(name for settings in asked for name in settings if name != "data_dir"))
    return [(name.replace("_", " "), [show(settings.get(name)) for settings in asked]) for name in names]


def version_rows(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Package → its version in each run, as its result has it."""
    told = [run.result.get("versions") or run.record.get("versions") or {} for run in runs]
    names = list(dict.fromkeys(name for versions in told for name in versions))
    return [(name, [str(versions.get(name, "unknown")) for versions in told]) for name in names]


def differing(runs: Sequence[Run]) -> list[str]:
    """Settings in which runs differ that decide what is computed: then they are no repetitions of one fit."""
    apart = ("seed", "seeds", "device", "threads", "data dir")
    rows = [row for row in setting_rows(runs) if row[0] not in apart and len(set(row[1])) > 1]
    return [f"{name} ({' / '.join(values)})" for name, values in rows]


def show(value: Any) -> str:
    """A setting as a reader wants it."""
    if value is None:
        return "the program's own"
    if isinstance(value, dict):
        return ", ".join(f"{name}={number:g}" for name, number in value.items())
    return Path(value).name if isinstance(value, str) and "/" in value else str(value)


def spread(counts: Sequence[float]) -> str:
    """Counts of several fits, as one number where they agree."""
    least, most = min(counts), max(counts)
    return f"{least:,g}" if least == most else f"{least:,g} to {most:,g}"


def _asked(run: Run) -> Row:
    """What was asked for, and what it came to where that was left to the program."""
    names = ("program", "inference", "data", "epochs")
    told: Row = {key: run.result[key] for key in names if key in run.result}
    return {**told, **{key: told.get(key) if value is None else value for key, value in run.settings.items()}}


def _measure(name: str, value: float, threshold: str) -> str:
    number = "not defined" if math.isnan(value) else "infinite" if math.isinf(value) else f"{value:.3g}"
    return f"{name.replace('_percent', ' in percent').replace('_', ' ')}: {number}" + (
        f" (wanted {threshold})" if threshold else ""
    )


def _sentence(text: str) -> str:
    text = text.strip()
    first = text.split(" ", 1)[0]
    begun = text[:1].upper() + text[1:] if first.isalpha() else text  # not where it begins with code
    return begun + ("" if text.endswith((".", "…")) else ".")
