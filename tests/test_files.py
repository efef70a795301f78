import ast
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from bayesprune.errors import CheckpointError, RunFolderError
from bayesprune.files import is_temporary, read_json, sha256_of, sweep, write_atomically, write_json


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
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(tmp_path / "a", "new")
    assert caught.value.filename == str(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_the_file_its_name_and_the_folder_are_flushed_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flush(handle: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", lambda *ends: (events.append("name"), replace(*ends)))
    write_atomically(tmp_path / "a", "whole")
    assert events == ["file", "name", "folder"]


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    ours = [tmp_path / ".a.json.0123abcd.tmp", tmp_path / "deeper" / ".epoch-0001.safetensors.deadbeef.tmp"]
    others = ["a.json", ".a.json.tmp", "notes.0123abcd.tmp", ".a.json.0123ABCD.tmp", ".lock"]
    (tmp_path / "deeper").mkdir()
    for path in (*ours, *(tmp_path / name for name in others)):
        path.write_text("part")
    assert [is_temporary(path) for path in ours] == [True, True]
    assert sweep(tmp_path, "epoch-*") == ours[1:]
    assert sweep(tmp_path) == ours[:1]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == sorted(others)


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a":' + "[" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "needs more than 64 bits"),
        ('{"a": -9223372036854775809}', "needs more than 64 bits"),
        ('{"a": 1e999}', "is not finite"),
        ('{"a": ' + "1" * 500 + ".5}", "is not finite"),
        ('{"a": NaN}', "is not finite"),
        ('{"a": -Infinity}', "is not finite"),
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ('{"a": "\\ud800"}', "surrogates not allowed"),
    ],
)
def test_json_that_no_program_of_ours_wrote(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_json(tmp_path / "a.json", CheckpointError)


def test_numbers_at_the_ends_of_their_range_are_read(tmp_path: Path) -> None:
    value = {"a": [2**63 - 1, -(2**63), 1.7976931348623157e308, 5e-324, -0.0], "b": "\U0001d54a"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value


WRITERS = {
    "write_text", "write_bytes", "savefig", "imsave", "to_netcdf", "to_file", "save_file", "tofile",
    "mkstemp", "NamedTemporaryFile", "dump", "savez", "symlink_to",
}  # fmt: skip
RENAMING = {"os.replace", "os.rename", "path.replace", "path.rename", "shutil.move", "shutil.copy"}
ALLOWED = {
    "cli/finished.py": {"path.rename"},  # puts aside what was changed
    "report/svg.py": {"savefig"},  # into memory
}


def _writers(tree: ast.AST) -> Iterator[str]:
    """Calls that write files by themselves."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = getattr(call.func, "id", getattr(call.func, "attr", ""))
        whole = ast.unparse(call.func)
        given = [node.value for node in (*call.args, *(k.value for k in call.keywords)) if _is_text(node)]
        opened = any(len(text) < 4 and set(text) & set("wxa+") for text in given)
        if name in WRITERS or whole in RENAMING or (name in ("open", "fdopen") and opened):
            yield whole if whole in RENAMING else name


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_every_file_is_written_by_one_writer() -> None:
    package = Path(__file__).parents[1] / "bayesprune"
    found = {
        str(path.relative_to(package)): set(_writers(ast.parse(path.read_text(encoding="utf-8"))))
        for path in package.rglob("*.py")
        if path.name != "files.py"
    }
    assert {path: names for path, names in found.items() if names} == ALLOWED


@pytest.mark.parametrize(
    "line",
    ["open(a, 'w')", "open(a, mode='xb')", "a.write_text('')", "os.replace(a, b)", "torch.onnx.x.dump(a)"],
)
def test_a_writer_of_its_own_would_be_seen(line: str) -> None:
    assert list(_writers(ast.parse(line)))
    assert not list(_writers(ast.parse("open(a, 'rb'); text.replace('a', 'w'); json.dumps(a)")))
