"""The page of error rates is what the benchmark has recorded, and the rates are those that are declared."""

import json
from pathlib import Path

from scipy.stats import binom

REPOSITORY = Path(__file__).parents[2]
RECORD = json.loads((REPOSITORY / "benchmarks/results/diagnose_rates.json").read_text())


def test_the_page_quotes_the_record():
    page = (REPOSITORY / "docs/diagnosis_rates.md").read_text(encoding="utf-8")
    assert RECORD["command"] in page
    rows = [line for line in page.splitlines() if line.startswith("| ")][1:]
    expected = [
        f"| {r['question']} | {r['planted']} | {'yes' if r['right'] else 'no'} | {r['wrong']} of {r['of']} |"
        for r in RECORD["results"]
    ]
    assert rows == expected


def test_recorded_false_alarms_are_no_more_than_declared():
    """At 1 % each: more than is allowed here has a probability of 1e-3."""
    for found in RECORD["results"]:
        if found["right"] and "k-hat" not in found["question"]:
            assert found["wrong"] <= binom.ppf(1 - 1e-3, found["of"], 0.01), found
