"""A certificate to be read by people: the sentence, the candidates around the line, and what to do next."""

from __future__ import annotations

import textwrap
from typing import Any

from bayesprune.certify.size import kept, percent, smaller

WIDTH, AROUND, WIDE = 100, 3, 9


def table(record: dict[str, Any]) -> str:
    """A few lines for the terminal.

    Args:
        record: of a certificate.
    """
    path = record["path"]
    covered = any(entry["coverage"] < 1 for entry in path)
    lines = textwrap.wrap(record["statement"], WIDTH)
    risks = record["loss"].get("risks", [])
    heads = [f"risk {number} %" for number in range(1, len(risks) + 1)] or ["risk %"]
    lines += [
        "",
        f"{'':>3}{'size %':>9}{'zeros %':>9}{''.join(f'{head:>{WIDE}}' for head in heads)}"
        f"{'  coverage %' if covered else ''}{'p-value':>11}",
    ]
    shown = _shown(record)
    for place, position in enumerate(shown):
        if place and position != shown[place - 1] + 1:
            lines.append(f"{'⋮':>9}")
        lines.append(_row(record, position, covered))
    left = len(path) - shown[-1] - 1
    if left:
        lines.append(f"{'⋮':>9}   ({left} more)")
    loss, rule, p_value = _loss(record["loss"]), record["rule"]["name"], record["p_value"]["name"]
    lines += ["", *textwrap.wrap(f"{loss}, {p_value} p-value, {rule}, path: {record['path_name']}", WIDTH)]
    size = [] if record["certified"] is None else textwrap.wrap(smaller(record), WIDTH)
    return "\n".join(lines + size + textwrap.wrap(_next(record), WIDTH))


def _loss(loss: dict[str, Any]) -> str:
    """The name of a loss; of several each, with its level."""
    if "risks" not in loss:
        return f"loss {loss['name']}"
    told = [
        f"{number} {_named(risk['loss'])} ≤ {percent(risk['alpha'])}"
        for number, risk in enumerate(loss["risks"], start=1)
    ]
    return f"risks {', '.join(told)}"


def _named(loss: dict[str, Any]) -> str:
    own = str(loss.get("function", loss["name"]))
    return f"{_named(loss['loss'])} of class {loss['label']}" if "label" in loss else own


def _shown(record: dict[str, Any]) -> list[int]:
    """The first candidate, and those around the certified one or the first that failed."""
    count = len(record["path"])
    centre = (
        record["certified"] if record["certified"] is not None else (record["next"] or {}).get("candidate", 0)
    )
    around = range(max(0, centre - AROUND), min(count, centre + AROUND + 1))
    return sorted({0, *around})


def _row(record: dict[str, Any], position: int, covered: bool) -> str:
    entry, whole = record["path"][position], record["reference"]["parameters"]
    mark = "→" if position == record["certified"] else "✓" if entry["certified"] else "·"
    size = f"{100 * entry['parameters'] / max(whole, 1):>9.2f}"
    zeros = f"{100 * (1 - entry['parameters_left'] / max(entry['parameters'], 1)):>9.2f}"
    risks = entry.get("risks", [entry["risk"]])
    told = "".join(f"{'–' if risk is None else f'{100 * risk:.3f}':>{WIDE}}" for risk in risks)
    coverage = f"{100 * entry['coverage']:>12.1f}" if covered else ""
    return f"{mark:>3}{size}{zeros}{told}{coverage}{entry['p_value']:>11.2g}   {entry['name']}"


def _next(record: dict[str, Any]) -> str:
    """What the first candidate that failed would have needed."""
    failed = record["next"]
    if failed is None:
        which = "" if all(entry["certified"] for entry in record["path"]) else " from the first start on"
        return f"Every candidate of the path{which} is certified: a path that goes further may reach more."
    entry = record["path"][failed["candidate"]]
    what = f"The first that failed ({kept(entry, record['reference']['parameters'])})"
    several = " (all levels in proportion, this is the largest)" if "risks" in record["loss"] else ""
    alpha = (
        f"alpha ≥ {percent(failed['alpha'])}{several}"
        if failed["alpha"] is not None
        else "no alpha below 100 %"
    )
    rows = (
        f"about {failed['rows']:,} rows of that risk"
        if failed["rows"] is not None
        else "no number of rows like these"
    )
    return f"{what} would have needed {alpha}, or {rows}. Fix either before fresh rows are drawn."
