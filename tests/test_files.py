import json
import os
import stat
from pathlib import Path

import pytest

from bayesprune.errors import CheckpointError, RunFolderError
from bayesprune.files import read_json, sha256_of, write_atomically, write_json


def test_writes_bytes_and_text_making_folders(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b.txt", "γ = 1")
    write_atomically(tmp_path / "a" / "b.bin", b"\x00\x01")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "γ = 1".encode()
    assert (tmp_path / "a" / "b.bin").read_bytes() == b"\x00\x01"


def test_leaves_nothing_but_the_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", "1")
    write_atomically(tmp_path / "a", "2")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "2"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    write_atomically(tmp_path / "a", "old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "a", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_the_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    write_atomically(tmp_path / "ours", "")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "usual").stat().st_mode
    )


def test_json_round_trip_refuses_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"x": [1, 2.5, None]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1, 2.5, None]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b'{"x": 1', "truncated"),
        (b"\xff\xfe", "truncated"),
        (b"[1]", "not a JSON object"),
    ],
)
def test_bad_json_names_file_and_fault(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_json(path, CheckpointError)
    assert str(path) in str(caught.value)


def test_bad_json_is_a_run_folder_error_by_default(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError):
        read_json(tmp_path / "none.json")


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
