"""Tables of node_vs_edge.py: means over seeds, and paired differences with their intervals."""

from typing import Any

import numpy as np
from scipy import stats

PAIRS = (
    ("DPP node", "random node"),
    ("DPP node, median β", "random node"),
    ("DPP node", "importance node"),
    ("DPP node, fused", "random node, fused"),
    ("DPP node, median β, fused", "random node, fused"),
    ("DPP node, fused", "importance node, fused"),
    ("DPP node, median β, fused", "importance node, fused"),
    ("DPP node, fused", "random node"),
    ("DPP node, fused", "importance node"),
    ("DPP node, fused", "magnitude node, fused"),
    ("random edge", "DPP node"),
    ("random edge", "DPP node, fused"),
    ("magnitude edge", "DPP node, fused"),
    ("random edge, fused", "DPP node, fused"),
    ("magnitude edge, fused", "DPP node, fused"),
    ("DPP edge", "random edge"),
    ("DPP edge", "magnitude edge"),
    ("DPP edge", "DPP node"),
    ("DPP edge, fused", "random edge, fused"),
    ("DPP edge, fused", "magnitude edge, fused"),
    ("DPP edge, fused", "DPP node, fused"),
    ("DPP edge, fused", "posterior node, fused"),
    ("posterior node", "DPP node"),
    ("posterior node, fused", "DPP node, fused"),
    ("posterior node, fused", "Taylor node, fused"),
    ("posterior node, fused", "importance × activation node, fused"),
    ("DPP node", "importance × activation node"),
    ("magnitude edge", "importance × activation node"),
    ("magnitude edge", "posterior node"),
    ("magnitude edge", "posterior node, fused"),
    ("magnitude edge, fused", "posterior node, fused"),
)
LEVEL = 0.95


def by_rule(records: list[dict[str, Any]], key: str) -> dict[str, dict[float, np.ndarray]]:
    """Rule → fraction → (seeds,), in order of seeds."""
    found: dict[str, dict[float, dict[int, float]]] = {}
    for record in records:
        found.setdefault(record["rule"], {}).setdefault(record["fraction"], {})[record["seed"]] = record[key]
    return {
        rule: {f: np.array([values[s] for s in sorted(values)]) for f, values in table.items()}
        for rule, table in found.items()
    }


def summary(records: list[dict[str, Any]], key: str) -> str:
    """A Markdown table: rules by fractions, mean ± standard deviation over seeds."""
    table = by_rule(records, key)
    fractions = sorted({record["fraction"] for record in records}, reverse=True)
    heads = [f"{f:.0%}" for f in fractions]
    lines = ["| rule | " + " | ".join(heads) + " |", "|---" * (len(fractions) + 1) + "|"]
    for rule, errors in table.items():
        found = [errors[f] for f in fractions]
        cells = [f"{e.mean():.2f} ± {e.std(ddof=1) if len(e) > 1 else 0:.2f}" for e in found]
        lines.append(f"| {rule} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def comparisons(records: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Paired differences of the rules that the findings speak of, at every fraction."""
    table = by_rule(records, key)
    found = []
    for first, second in PAIRS:
        for fraction in sorted(table[first], reverse=True):
            difference = table[first][fraction] - table[second][fraction]
            mean, half = float(difference.mean()), half_width(difference)
            verdict = "better" if mean + half < 0 else "worse" if mean - half > 0 else "undecided"
            text = f"{first} − {second} at {fraction:.0%}: {mean:+.2f} ± {half:.2f} ({verdict})"
            found.append(
                {"first": first, "second": second, "fraction": fraction, "difference": mean,
                 "half_width": half, "verdict": verdict, "seeds": len(difference), "text": text}
            )  # fmt: skip
    return found


def half_width(differences: np.ndarray) -> float:
    """Of the t-interval of a mean."""
    if len(differences) < 2:
        return float("inf")
    quantile = stats.t.ppf((1 + LEVEL) / 2, len(differences) - 1)
    return float(quantile * differences.std(ddof=1) / len(differences) ** 0.5)
