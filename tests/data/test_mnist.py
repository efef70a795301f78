import gzip
import hashlib
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from bayesprune.data import load
from bayesprune.errors import DataError

MODULE = importlib.import_module("bayesprune.data.mnist")  # bayesprune.data.mnist is the function


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No data anywhere, and mirrors that are folders: first/ and second/."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("BAYESPRUNE_DATA", raising=False)
    monkeypatch.setattr(
        MODULE, "MIRRORS", (f"{(tmp_path / 'first').as_uri()}/", f"{(tmp_path / 'second').as_uri()}/")
    )
    return tmp_path


def _expect(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {
        path.name.removesuffix(".gz"): hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
        for path in folder.iterdir()
    }
    monkeypatch.setattr(MODULE, "SHA256", digests)


def test_the_data_dir_comes_first(write_set: Any, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set("mnist", first_label=0)
    monkeypatch.setenv("BAYESPRUNE_DATA", str(places))
    data = load("mnist", write_set("given", first_label=1))
    assert (data.name, bool(data.note)) == ("mnist", True)


def test_the_environment_comes_second(write_set: Any, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set("mnist")
    monkeypatch.setenv("BAYESPRUNE_DATA", str(places))
    assert load("mnist").classes == 3
    assert not (places / "cache").exists()


def test_downloads_once_into_the_cache(
    write_set: Any, places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_set("first")
    _expect(folder, monkeypatch)
    monkeypatch.setattr(
        sys.modules["bayesprune.data.mnist"], "bar_hidden", lambda progress: not progress
    )  # a terminal's
    assert load("mnist").classes == 3
    assert "Downloading MNIST" in capsys.readouterr().err
    assert sorted(path.name for path in (places / "cache/bayesprune/mnist").iterdir()) == sorted(
        path.name for path in folder.iterdir()
    )
    monkeypatch.setattr(MODULE, "MIRRORS", ())
    assert load("mnist").classes == 3


def test_another_mirror_is_tried_where_one_fails_or_serves_something_else(
    write_set: Any, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _expect(write_set("second"), monkeypatch)
    first = write_set("first")
    for number, path in enumerate(sorted(first.iterdir())):
        if number == 0:
            path.unlink()
        elif number == 1:
            path.write_bytes(b"<html>sign in to this network</html>")
        elif number == 2:
            path.write_bytes(gzip.compress(b"other content"))
    assert load("mnist", progress=False).classes == 3


def test_a_recompressed_file_is_the_same_file(
    write_set: Any, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_set("first")
    _expect(folder, monkeypatch)
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=1))
    assert load("mnist", progress=False).classes == 3


def test_without_a_network_the_message_says_how_to_go_on(
    write_set: Any, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _expect(write_set("elsewhere"), monkeypatch)
    with pytest.raises(DataError) as caught:
        load("mnist", progress=False)
    message = str(caught.value)
    for part in (
        "first/",
        "second/",
        "--data-dir",
        "BAYESPRUNE_DATA",
        "--data digits",
        "t10k-labels-idx1-ubyte.gz",
    ):
        assert part in message
    assert not list((places / "cache").rglob("*.gz"))


def test_a_wrong_checksum_is_never_kept(
    write_set: Any, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _expect(write_set("first"), monkeypatch)
    monkeypatch.setattr(MODULE, "SHA256", dict.fromkeys(MODULE.SHA256, "0" * 64))
    with pytest.raises(DataError, match="SHA-256 of the content is"):
        load("mnist", progress=False)
    assert not list((places / "cache").rglob("*.gz"))


def test_a_corrupt_cached_file_is_named_with_the_remedy(
    write_set: Any, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _expect(write_set("first"), monkeypatch)
    load("mnist", progress=False)
    path = places / "cache/bayesprune/mnist/train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match="delete it, and it is fetched again"):
        load("mnist")


@pytest.mark.skipif(
    not (Path(os.environ.get("BAYESPRUNE_DATA", "/nowhere")) / "mnist").is_dir(),
    reason="the real MNIST is read where BAYESPRUNE_DATA names it",
)
def test_the_real_files_have_the_published_checksums_and_sizes() -> None:
    folder = Path(os.environ["BAYESPRUNE_DATA"]) / "mnist"
    for name, digest in MODULE.SHA256.items():
        content = MODULE.gzip.decompress((folder / f"{name}.gz").read_bytes())
        assert hashlib.sha256(content).hexdigest() == digest
    data = load("mnist")
    assert (data.train.x.shape, data.test.x.shape, data.classes) == (
        (60000, 1, 28, 28),
        (10000, 1, 28, 28),
        10,
    )
