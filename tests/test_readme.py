"""The first page: it is short, its code runs in its order, its commands and its links exist.

A comment above a block says when it runs: without one, always; ``nightly``, under BAYESPRUNE_NIGHTLY=1, since
it trains for long or installs. What begins in a clone goes on there.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from bayesprune.cli.main import command

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- run: (?P<when>.*?) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A fenced block of the page: its language, its code, and when it is run."""

    language: str
    code: str
    when: str


BLOCKS = [Block(b["language"], b["code"], b["when"] or "always") for b in BLOCK.finditer(README)]


def _run(words: list[str], folder: Path, **variables: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_first_page_is_short():
    assert len(README.splitlines()) <= 150


def test_every_block_says_what_it_is_and_when_it_runs():
    fences = re.findall(r"^```(\w*)", README, re.M)[::2]
    assert [language for language in fences if language] == [block.language for block in BLOCKS]
    assert {block.language for block in BLOCKS} == {"bash", "python"}
    assert {block.when.split(",")[0] for block in BLOCKS} == {"always", "nightly", "never"}
    assert all(block.when == "always" for block in BLOCKS if block.language == "python")


def test_its_python_runs_in_order_in_an_empty_folder(tmp_path):
    code = "\n".join(block.code for block in BLOCKS if block.language == "python")
    assert code.count("import bayesprune as bp") == 1
    _run([sys.executable, "-W", "error", "-c", code], tmp_path, PYTHONPATH=str(REPOSITORY))
    assert {path.name for path in tmp_path.iterdir()} == {"small"}


@pytest.mark.nightly  # installs from the network, and trains
def test_its_commands_run_in_order_in_a_clone(tmp_path):
    clone = tmp_path / "clone"
    ignored = shutil.ignore_patterns(".git", ".venv", "_build", "__pycache__", "runs")
    shutil.copytree(REPOSITORY, clone, ignore=ignored)
    blocks = [b for b in BLOCKS if b.language == "bash" and b.when.startswith("nightly")]
    assert len(blocks) >= 2
    for block in blocks:
        _run(["bash", "-euo", "pipefail", "-c", block.code], clone, PYTHONPATH="")
    assert (clone / "runs/lenet5-digits/report.html").exists() and (clone / "mine.py").exists()


def test_its_command_for_tests_is_that_of_ci():
    (never,) = [block for block in BLOCKS if block.when.startswith("never")]
    words = shlex.split((REPOSITORY / ".ci/run").read_text(), comments=True)
    assert "-m pytest -n auto" in never.code and "python -m pytest -n auto" in " ".join(words)
    extras = re.search(r"'\.\[(.*?)\]'", never.code)[1].split(",")
    known = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"test", "dev"} == set(extras) <= set(known)


def _commands(text: str) -> list[list[str]]:
    """Every call of the program ``bayesprune`` in the shell blocks of a page, as words."""
    found = []
    for block in BLOCK.finditer(text):
        if block["language"] != "bash":
            continue
        for line in block["code"].replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|;|\|", line.split(" #")[0]):
                words = shlex.split(part, comments=True)
                if words and Path(words[0]).name == "bayesprune":
                    found.append(words[1:])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_the_pages_are_understood(page):
    for words in _commands(page.read_text(encoding="utf-8")):
        context = click.Context(command, info_name="bayesprune")
        name, chosen, rest = command.resolve_command(context, words)
        assert chosen is not None, words
        try:
            chosen.make_parser(click.Context(chosen, info_name=name, parent=context)).parse_args(list(rest))
        except click.ClickException as problem:
            pytest.fail(f"{page.name}: bayesprune {' '.join(words)}: {problem.format_message()}")


def test_commands_are_found_on_the_pages():
    assert sum(len(_commands(page.read_text(encoding="utf-8"))) for page in PAGES) > 25


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        file, _, heading = target.partition("#")
        there = page.parent / file if file else page
        assert there.exists(), f"{page.name} links to {target}"
        if heading:
            lines = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in lines}
            assert heading in slugs, f"{page.name} links to {target}: {sorted(slugs)}"


def test_the_pages_can_be_reached_from_the_first():
    assert all(f"docs/{page.name}" in README for page in PAGES[1:]), [
        page.name for page in PAGES[1:] if f"docs/{page.name}" not in README
    ]
