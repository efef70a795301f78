"""Commands that are killed, at moments and at writes, and given again: nothing is lost, nothing is left.

Dozens of kills with ``BAYESPRUNE_NIGHTLY=1``: ``python benchmarks/kill_runs.py``.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bayesprune.cli import folder as folders

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MOMENTS, WRITES = (24, 60) if os.environ.get("BAYESPRUNE_NIGHTLY") == "1" else (0, 2)


@pytest.fixture(scope="module")
def killer() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import kill_runs

        return kill_runs
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_killed_commands_end_as_if_nobody_had_killed_them(tmp_path: Path) -> None:
    words = ["--moments", str(MOMENTS), "--writes", str(WRITES), "--seed", "3", "--out", tmp_path / "a.json"]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "kill_runs.py", *words],
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=3600, check=False,
    )  # fmt: skip
    found = json.loads((tmp_path / "a.json").read_text())["results"]
    assert (found["wrong"], done.returncode) == ([], 0), done.stdout + done.stderr
    assert found["kills_in_all"] >= (MOMENTS + WRITES) / 2


def test_what_is_left_of_a_claim_is_taken_over(cli: Any) -> None:
    Path("out").mkdir()
    for name in (".lock", ".run.json.0123abcd.tmp"):
        Path("out", name).write_text("part")
    assert cli("run", "./mine.py", "--epochs", "1", "--quiet", "--out", "out").code == 0
    assert not Path("out/.run.json.0123abcd.tmp").exists()
    Path("other").mkdir()
    Path("other/.notes.0123abcd.tmp").write_text("somebody's")
    assert "is not empty" in cli("run", "./mine.py", "--out", "other").err
    assert not folders.has_progress(Path("other"))


def test_a_wrong_end_would_be_seen(killer: ModuleType, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", {"a.json": {"b": 1}, "c": "x"}
    (out / "checkpoints").mkdir(parents=True)
    (out / "a.json").write_text(json.dumps({"b": 2, "seconds": 3.0}))
    (out / ".c.0123abcd.tmp").write_text("part")
    found = killer.differences(out, whole)
    assert found[:3] == ["a.json differs", "c is missing", ".c.0123abcd.tmp is left, a temporary file"]
    (out / "a.json").write_text(json.dumps({"b": 1, "seconds": 4.0}))
    assert "a.json differs" not in killer.differences(out, whole)


def test_a_process_is_killed_at_the_point_that_is_named(killer: ModuleType, tmp_path: Path) -> None:
    from bayesprune.files import write_atomically

    def outcome(stop: int, after: bool, half: bool = False) -> tuple[int, dict[str, str]]:
        (tmp_path / "a").write_text("old")
        child = os.fork()
        if child == 0:
            killer.points(stop, after, half)()
            write_atomically(tmp_path / "a", "newer!")
            os._exit(0)
        code = killer.ended(child)
        left = {path.name[:2]: path.read_text() for path in tmp_path.iterdir()}
        for path in tmp_path.iterdir():
            path.unlink()
        return code, left

    killed = -signal.SIGKILL
    # a folder is looked for, the file is flushed, takes its name, and the folder is flushed
    assert outcome(2, False, half=True) == (killed, {"a": "old", ".a": "new"})
    assert outcome(2, False) == (killed, {"a": "old", ".a": "newer!"})
    assert outcome(3, False) == (killed, {"a": "old", ".a": "newer!"})
    assert outcome(3, True) == (killed, {"a": "newer!"})
    assert outcome(9, True) == (0, {"a": "newer!"})
