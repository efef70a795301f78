"""A certificate to be read by people: the sentence, the candidates around the line, and what to do next."""

from __future__ import annotations

import textwrap
from typing import Any

from bayesprune.certify.statement import percent

WIDTH, AROUND = 100, 3


def table(record: dict[str, Any]) -> str:
    """A few lines for the terminal.

    Args:
        record: of a certificate.
    """
    path = record["path"]
    covered = any(entry["coverage"] < 1 for entry in path)
    lines = textwrap.wrap(record["statement"], WIDTH)
    lines += [
        "",
        f"{'':>3}{'sparsity %':>11}{'risk %':>9}{'coverage %':>12}{'p-value':>11}"
        if covered
        else f"{'':>3}{'sparsity %':>11}{'risk %':>9}{'p-value':>11}",
    ]
    shown = _shown(record)
    for place, position in enumerate(shown):
        if place and position != shown[place - 1] + 1:
            lines.append(f"{'⋮':>9}")
        lines.append(_row(path[position], position == record["certified"], covered))
    left = len(path) - shown[-1] - 1
    if left:
        lines.append(f"{'⋮':>9}   ({left} more)")
    loss, rule, p_value = record["loss"]["name"], record["rule"]["name"], record["p_value"]["name"]
    lines += ["", f"loss {loss}, {p_value} p-value, {rule}, path: {record['path_name']}"]
    return "\n".join(lines + textwrap.wrap(_next(record), WIDTH))


def _shown(record: dict[str, Any]) -> list[int]:
    """The first candidate, and those around the certified one or the first that failed."""
    count = len(record["path"])
    centre = (
        record["certified"] if record["certified"] is not None else (record["next"] or {}).get("candidate", 0)
    )
    around = range(max(0, centre - AROUND), min(count, centre + AROUND + 1))
    return sorted({0, *around})


def _row(entry: dict[str, Any], chosen: bool, covered: bool) -> str:
    mark = "→" if chosen else "✓" if entry["certified"] else "·"
    risk = "–" if entry["risk"] is None else f"{100 * entry['risk']:.3f}"
    coverage = f"{100 * entry['coverage']:>12.1f}" if covered else ""
    sparsity, p_value = f"{100 * entry['sparsity']:>11.2f}", f"{entry['p_value']:>11.2g}"
    return f"{mark:>3}{sparsity}{risk:>9}{coverage}{p_value}   {entry['name']}"


def _next(record: dict[str, Any]) -> str:
    """What the first candidate that failed would have needed."""
    failed = record["next"]
    if failed is None:
        return "Every candidate of the path is certified: a path that goes further may reach more."
    entry = record["path"][failed["candidate"]]
    what = f"The first that failed ({percent(round(entry['sparsity'], 4))} sparse)"
    alpha = f"alpha ≥ {percent(failed['alpha'])}" if failed["alpha"] is not None else "no alpha below 100 %"
    rows = (
        f"about {failed['rows']:,} rows of that risk"
        if failed["rows"] is not None
        else "no number of rows like these"
    )
    return f"{what} would have needed {alpha}, or {rows}. Fix either before fresh rows are drawn."
