import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.nightly import one_in

REPOSITORY = Path(__file__).parents[2]
RUN = ("run", "./mine.py", "--inference", "./stopping.py", "--epochs", "6")


def _process(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bayesprune", *words],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _without_times(path: Path) -> Any:
    def drop(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: drop(entry) for key, entry in value.items() if not key.startswith("seconds")}
        return [drop(entry) for entry in value] if isinstance(value, list) else value

    return drop(json.loads(path.read_text()))


def _assert_equal_runs(one: Path, other: Path) -> None:
    assert (one / "pruned.safetensors").read_bytes() == (other / "pruned.safetensors").read_bytes()
    assert (one / "architecture.json").read_bytes() == (other / "architecture.json").read_bytes()
    for name in ("result.json", "history.json"):
        assert _without_times(one / name) == _without_times(other / name)


@pytest.mark.parametrize("after", one_in(3, [1, 3, 5]))
def test_a_killed_run_resumes_to_the_bit_equal_result(cli: Any, after: int) -> None:
    assert cli(*RUN, "--threads", "1", "--out", "whole").code == 0
    killed = _process(*RUN, "--threads", "1", "--out", "killed", STOP_AFTER=str(after), STOP_BY="SIGKILL")
    assert killed.returncode == -9, killed.stderr
    assert not Path("killed/result.json").exists()
    assert cli(*RUN, "--resume", "--out", "killed").code == 0
    _assert_equal_runs(Path("whole"), Path("killed"))
    kept = json.loads(Path("whole/result.json").read_text())["architecture"]
    assert kept[0] < 784, "units have to be removed, or the test shows too little"


def test_an_interruption_says_how_to_go_on(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOP_AFTER", "2")
    monkeypatch.setenv("STOP_BY", "SIGINT")
    stopped = cli(*RUN)
    assert stopped.code == 130
    assert "Interrupted." in stopped.err
    assert stopped.err.endswith("/stopping.py --resume --out runs/mine-digits\n")
    monkeypatch.delenv("STOP_AFTER")
    assert cli(*shlex.split(stopped.err.splitlines()[-1])[1:]).code == 0
    assert cli(*RUN, "--out", "whole").code == 0
    _assert_equal_runs(Path("whole"), Path("runs/mine-digits"))


def test_finished_seeds_are_not_run_again(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOP_AFTER", "1")
    monkeypatch.setenv("STOP_SEED", "1")
    monkeypatch.setenv("STOP_BY", "SIGINT")
    assert cli(*RUN, "--seeds", "3", "--out", "out").code == 130
    finished = Path("out/seed-0/result.json")
    before = finished.stat().st_mtime_ns
    monkeypatch.delenv("STOP_AFTER")
    resumed = cli(*RUN, "--resume", "--out", "out")
    assert resumed.code == 0
    assert "Seed 0 (1 of 3): finished before" in resumed.err
    assert finished.stat().st_mtime_ns == before
    assert len(json.loads(Path("out/result.json").read_text())["seeds"]) == 3


def test_a_finished_run_is_only_summed_up_again(cli: Any, files: Any) -> None:
    first = cli("run", "./mine.py")
    before = files(Path("runs"))
    again = cli("run", "./mine.py", "--resume")
    told = [[line for line in run.out.splitlines() if "  Time " not in line] for run in (first, again)]
    assert (again.code, told[1]) == (0, told[0])
    assert files(Path("runs")) == before


def test_the_newest_run_of_the_program_is_resumed(cli: Any) -> None:
    cli("run", "./mine.py", "--epochs", "1")
    cli("run", "./mine.py", "--epochs", "2")
    assert "runs/mine-digits-2" in cli("run", "./mine.py", "--resume").out
    assert cli("run", "lenet5", "--resume").code == 2


def test_other_settings_are_refused_one_and_all(cli: Any, files: Any) -> None:
    cli("run", "./mine.py", "--epochs", "1", "--out", "out")
    before = files(Path("out"))
    refused = cli(
        "run", "./mine.py", "--resume", "--out", "out", "--epochs", "9", "--price", "input=3", "--seed", "4"
    )
    assert refused.code == 2
    for part in (
        "epochs: the run has 1, this command 9",
        "the program's own, this command input=3",
        "seed: the run has 0",
    ):
        assert part in refused.err
    assert "lenet5" in cli("run", "lenet5", "--resume", "--out", "out").err
    assert files(Path("out")) == before
    assert cli("run", "./mine.py", "--resume", "--out", "out", "--epochs", "1", "--device", "cpu").code == 0


def test_a_changed_program_is_refused(cli: Any, tmp_path: Path) -> None:
    cli("run", "./mine.py", "--epochs", "1", "--out", "out")
    Path("out/result.json").unlink()
    (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text() + "# changed\n")
    refused = cli("run", "./mine.py", "--resume", "--out", "out")
    assert refused.code == 2
    assert "mine.py: is another file" in refused.err and "changed after the run began" in refused.err


def test_other_versions_are_noted(cli: Any) -> None:
    cli("run", "./mine.py", "--epochs", "1", "--out", "out")
    record = json.loads(Path("out/run.json").read_text())
    record["versions"]["torch"] = "1.0"
    Path("out/run.json").write_text(json.dumps(record))
    assert "torch 1.0 →" in cli("run", "./mine.py", "--resume", "--out", "out").err


@pytest.mark.parametrize("folder", ["none", "."])
def test_nothing_to_resume(cli: Any, folder: str) -> None:
    refused = cli("run", "./mine.py", "--resume", "--out", folder)
    assert refused.code == 2
    assert "holds no run to resume" in refused.err
    assert "Nothing to resume" in cli("run", "./mine.py", "--resume").err


@pytest.mark.parametrize(("content", "message"), [('{"a": ', "truncated"), ("{}", "format version None")])
def test_a_damaged_record_is_named(cli: Any, content: str, message: str) -> None:
    cli("run", "./mine.py", "--epochs", "1", "--out", "out")
    Path("out/run.json").write_text(content)
    refused = cli("run", "./mine.py", "--resume", "--out", "out")
    assert refused.code == 2
    assert "out/run.json" in refused.err
    assert message in refused.err


def test_a_truncated_checkpoint_is_named_and_nothing_is_lost(
    cli: Any, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOP_AFTER", "3")
    monkeypatch.setenv("STOP_BY", "SIGINT")
    cli(*RUN, "--out", "out")
    monkeypatch.delenv("STOP_AFTER")
    path = Path("out/checkpoints/epoch-0003.safetensors")
    path.write_bytes(path.read_bytes()[:-200])
    before = files(Path("out"))
    refused = cli(*RUN, "--resume", "--out", "out")
    assert refused.code == 2
    assert "epoch-0003.safetensors" in refused.err
    assert files(Path("out")) == before
    path.unlink()  # as the message says
    assert cli(*RUN, "--resume", "--out", "out").code == 0
    assert cli(*RUN, "--out", "whole").code == 0
    _assert_equal_runs(Path("whole"), Path("out"))
