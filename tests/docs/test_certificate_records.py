"""The page of certificates quotes what was measured, and what was measured is as rarely wrong as declared."""

import json
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/certify.md").read_text(encoding="utf-8")
PARTS = ["several", "starts", "exchangeable", "monitor"]


def record(part):
    text = (REPOSITORY / f"benchmarks/results/certificate_validity_{part}.json").read_text()
    return json.loads(text)["results"][part]


@pytest.mark.parametrize("part", PARTS)
def test_nothing_that_was_measured_is_a_violation(part):
    """By the tail probability of each count at the rate declared: 1e-4."""
    for row in record(part):
        assert row.get("valid", True) and row.get("bound_valid", True), row
        assert "valid" not in row or row["valid"] == (row["tail_probability"] > 1e-4)


def test_the_page_quotes_several_risks():
    rows = record("several")
    for name in dict.fromkeys(row["risks"] for row in rows):
        for p_value in ("binomial", "hoeffding-bentkus", "betting"):
            worst = max(
                row["false"] for row in rows
                if (row["risks"], row["p_value"], row["tested"]) == (name, p_value, "each at delta")
            )  # fmt: skip
            assert f"| {name} | {p_value} | {100 * worst:.2f} |" in PAGE


def test_the_page_quotes_several_starts():
    rows = record("starts")
    for rule in dict.fromkeys(row["rule"] for row in rows):
        cells = []
        for path in dict.fromkeys(row["path"] for row in rows):
            mine = [row for row in rows if (row["rule"], row["path"]) == (rule, path)]
            cells.append(f"{sum(row['last_certified'] for row in mine) / 2:.1f}")
        worst = 100 * max(row["false"] for row in rows if row["rule"] == rule)
        assert f"| {' | '.join(cells[:-1])} | {worst:.2f} |" in PAGE, rule


def test_the_page_quotes_exchangeability():
    for row in record("exchangeable"):
        share = row["false"] if "false" in row else row["seen"]
        line = f"| {row['test']} | {row['scores']} | {row['today']} | {row['trials']:,} | {100 * share:.2f} |"
        assert line in PAGE, line


def test_the_page_quotes_the_monitor():
    for row in record("monitor"):
        share = row["false"] if "false" in row else row["seen"]
        until = row["rows_until_seen"]
        rows = "–" if row["null"] or until is None else f"{until['0.5']:.0f} ({until['0.9']:.0f})"
        passed = row["rows_until_passed"]
        late = "–" if passed is None else f"{passed:.0f}, {100 * row['bound_passed_alpha']:.0f} %"
        line = (
            f"| {row['stream']} | {100 * share:.2f} | {rows} | {100 * row['bound_above_running_risk']:.2f} | "
            f"{late} |"
        )
        assert line in PAGE, line
