"""`bayesprune diagnose` prints five answers, ends with 0 or 1, and names what it cannot read."""

from pathlib import Path
from typing import Any

import pytest

from bayesprune.cli.diagnose import converged
from bayesprune.posterior.diagnose import Answer, Diagnosis


@pytest.mark.filterwarnings("ignore::bayesprune.errors.EmptyGroupWarning")
def test_a_short_run_is_not_converged_and_is_left_as_it_is(cli: Any) -> None:
    assert cli("run", "./mine.py", "--out", "one", "--seeds", "2", "--quiet").code == 0
    before = {path: path.read_bytes() for path in Path("one").rglob("*") if path.is_file()}
    done = cli("diagnose", "one")
    assert done.code == 1 and not done.err
    for line in ("optimised     no", "decided       ", "reproducible  not asked", "needs 4 fits, and has 2",
                 "epochs is 3, not at least 5", "calibrated    not asked"):  # fmt: skip
        assert line in done.out, done.out
    assert {path: path.read_bytes() for path in Path("one").rglob("*") if path.is_file()} == before
    twice = cli("diagnose", "one/seed-0", "one/seed-1", "one")
    assert "reproducible  not asked" not in twice.out


@pytest.mark.parametrize(
    "verdicts, expected",
    [
        ("yes yes yes yes yes", True),
        ("yes yes not_asked not_asked not_asked", True),
        ("yes yes yes no yes", False),
        ("not_asked yes yes yes yes", False),
    ],
)
def test_a_settled_mask_that_nothing_speaks_against_is_converged(verdicts: str, expected: bool) -> None:
    names = ("optimised", "decided", "reproducible", "faithful", "calibrated")
    words: Any = [word.replace("_", " ") for word in verdicts.split()]
    answers = [Answer(name, word, (), "", "") for name, word in zip(names, words, strict=True)]
    assert converged(Diagnosis(*answers)) == expected


def test_folders_without_draws_and_files_of_others_are_named(cli: Any) -> None:
    Path("empty").mkdir()
    Path("other").mkdir()
    (Path("other") / "posterior.nc").write_text("no NetCDF")
    for run, message in (
        ("empty", "has no posterior.nc"),
        ("none", "no such folder"),
        ("other", "cannot be read"),
    ):
        done = cli("diagnose", run)
        assert done.code == 2 and message in done.err and run in done.err
    assert (Path("other") / "posterior.nc").read_text() == "no NetCDF"
