"""The page of published tables quotes what was run again, as its record has it."""

from pathlib import Path

from bayesprune.files import read_json
from bayesprune.reproduce import TABLES, curves_as_markdown, read_record

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/published.md").read_text(encoding="utf-8")
RECORD = ROOT / "benchmarks/results/bmrs_mlp_mnist.json"


def test_the_page_quotes_the_record_of_curves_and_its_command():
    lines = [
        line for line in curves_as_markdown(read_record(RECORD, TABLES["bmrs"])).splitlines() if "|" in line
    ]
    assert len(lines) > 15 and [line for line in lines if line not in PAGE] == []
    assert f"`{read_json(RECORD)['command']}`" in PAGE and RECORD.name in PAGE


def test_the_commands_of_tables_are_there():
    for word in PAGE.split("bayesprune reproduce ")[1:]:
        name = word.split()[0]
        assert name in TABLES or name.startswith("#"), name
