"""The page on contributions names files, tables and commands that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/contributing.md").read_text(encoding="utf-8")


def test_every_file_that_it_names_is_there():
    found = set(re.findall(r"(?:tests|benchmarks|docs)/[\w/]+(?:\.py)?", PAGE))
    assert len(found) > 20
    assert [name for name in found if not (ROOT / name).exists()] == []


def test_every_list_that_it_names_is_in_its_file():
    for names, place in re.findall(r"((?:`[A-Z]+`(?:,| or)? ?)+)of `([\w/.]+)`", PAGE):
        path = ROOT / place
        for name in re.findall(r"[A-Z]+", names):
            assert re.search(rf"^{name}\b.* = ", path.read_text(encoding="utf-8"), re.MULTILINE), (
                name,
                place,
            )


def test_the_commands_of_tables_are_there():
    from bayesprune.reproduce import TABLES

    for name in re.findall(r"bayesprune reproduce ([\w-]+)", PAGE):
        assert name in TABLES
