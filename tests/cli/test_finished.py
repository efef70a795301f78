"""A run that says it has finished has all of its files, or is mended; one process a folder."""

import os
import signal
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from bayesprune.cli import folder as folders
from bayesprune.lock import FolderLock
from tests.cli.test_resume import _without_times

FILES = (
    "pruned.safetensors", "architecture.json", "history.json", "gates.png", "posterior.nc", "report.html",
    "evidence.json", "training_rows.safetensors", "result.json", "files.json",
)  # fmt: skip
EQUAL = ("pruned.safetensors", "architecture.json", "evidence.json", "gates.png", "training_rows.safetensors")


def test_a_finished_run_that_lost_or_changed_files_is_mended(cli: Any) -> None:
    out = Path("out")
    assert cli("run", "./mine.py", "--epochs", "1", "--out", "out").code == 0
    assert {path.name for path in out.iterdir()} == {*FILES, "run.json", "checkpoints"}
    whole = {name: (out / name).read_bytes() for name in EQUAL}
    told = {name: _without_times(out / name) for name in ("result.json", "history.json")}
    for names in (("posterior.nc", "report.html"), FILES):
        for name in names:
            (out / name).unlink()
        mended = cli("run", "./mine.py", "--resume", "--out", "out")
        assert mended.code == 0
        assert names == FILES or f"{names[0]} is missing" in mended.err
        assert all((out / name).is_file() for name in FILES)
        assert {name: (out / name).read_bytes() for name in EQUAL} == whole
        assert {name: _without_times(out / name) for name in told} == told
    part = (out / "posterior.nc").read_bytes()[:1000]
    (out / "posterior.nc").write_bytes(part)
    mended = cli("run", "./mine.py", "--resume", "--out", "out")
    assert (mended.code, "posterior.nc was changed" in mended.err) == (0, True)
    assert (out / "posterior.nc.changed-1").read_bytes() == part
    assert cli("diagnose", "out").code in (0, 1)


def test_a_folder_in_use_is_refused_and_left_alone(cli: Any, files: Any) -> None:
    assert cli("run", "./mine.py", "--epochs", "1", "--out", "out").code == 0
    Path("out/result.json").unlink()
    with FolderLock(Path("out")):
        before = files(Path("out"))
        refused = cli("run", "./mine.py", "--resume", "--out", "out")
        assert (refused.code, "works in this folder now" in refused.err) == (2, True)
        assert files(Path("out")) == before
    left = Path("out/checkpoints/.epoch-0001.safetensors.0123abcd.tmp")
    left.write_bytes(b"part")
    assert cli("run", "./mine.py", "--resume", "--out", "out").code == 0
    assert not left.exists() and not Path("out/.lock").exists()


def test_a_full_disk_costs_one_message_that_names_the_file(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.replace

    def fail(source: Any, target: Any) -> None:
        if str(target).endswith("posterior.nc"):
            raise OSError(28, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        full = cli("run", "./mine.py", "--epochs", "1", "--out", "out")
    assert full.code == 2
    assert [line for line in full.err.splitlines() if "Error" in line] == [
        "Error: out/posterior.nc: No space left on device. Check that the place can be read and written, and "
        "has room."
    ]
    assert not Path("out/result.json").exists() and not list(Path("out").rglob("*.tmp"))
    assert cli("run", "./mine.py", "--resume", "--out", "out").code == 0


@pytest.mark.parametrize("kind", ["empty", "link", "new"])
def test_the_true_error_is_told_and_a_users_folder_stays(cli: Any, tmp_path: Path, kind: str) -> None:
    if kind != "new":
        Path("real").mkdir()
    out = Path("real")
    if kind == "link":
        out = Path("link")
        out.symlink_to("real")
    failed = cli("run", "./mine.py", "--price", "nobody=3", "--out", str(out))
    assert failed.code == 2 and "nobody" in failed.err
    assert Path("real").exists() == (kind != "new")
    assert not Path("real").exists() or list(Path("real").iterdir()) == []
    if kind == "link":
        assert cli("run", "./mine.py", "--epochs", "1", "--out", "link").code == 0


def test_giving_back_raises_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "checkpoints").mkdir()

    def fail(path: Path) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "rmdir", fail)
    folders.give_back(tmp_path)
    assert not (tmp_path / "run.json").exists()


def test_what_a_killed_writer_left_is_no_progress(tmp_path: Path) -> None:
    (tmp_path / ".pruned.safetensors.0123abcd.tmp").touch()
    (tmp_path / "run.json").touch()
    (tmp_path / ".lock").touch()
    assert not folders.has_progress(tmp_path)
    (tmp_path / "history.json").touch()
    assert folders.has_progress(tmp_path)


def test_interrupted_before_the_first_epoch_nothing_is_left(
    cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    loop = import_module("bayesprune.svi.fit")._Loop  # the room has a function of that name
    monkeypatch.setattr(loop, "_epoch_", interrupt)
    Path("mine").mkdir()
    for name in ("mine", "fresh"):
        assert cli("run", "./mine.py", "--out", name).code == 130
    assert list(Path("mine").iterdir()) == [] and not Path("fresh").exists()
