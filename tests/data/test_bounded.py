"""Files that announce or unpack to more than they can be, and names that count too far: refused."""

import gzip
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from bayesprune.data import load, read_idx
from bayesprune.data.cifar import RECORD
from bayesprune.data.mnist import cache_folder
from bayesprune.errors import DataError


@pytest.fixture
def frugal() -> Iterator[None]:
    """A test within 40 MB of Python's memory."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


def _idx(*shape: int) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)


def test_a_gzip_that_unpacks_to_far_more_than_it_announces(tmp_path: Path, frugal: None) -> None:
    with gzip.open(tmp_path / "a.gz", "wb", compresslevel=1) as out:
        out.write(_idx(10))
        for _ in range(200):
            out.write(bytes(2**20))
    with pytest.raises(DataError, match="too long: the header announces 10 = 10 values, there are 10 and"):
        read_idx(tmp_path / "a.gz")


@pytest.mark.parametrize("packed", [False, True])
def test_sizes_that_are_announced_are_not_allocated(tmp_path: Path, packed: bool, frugal: None) -> None:
    content = _idx(60_000, 28_000, 28) + bytes(100)
    (tmp_path / "a").write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match="announces 60000 × 28000 × 28 = 47,040,000,000 values, more"):
        read_idx(tmp_path / "a")
    (tmp_path / "a").write_bytes(_idx(200_000, 28, 28))
    with pytest.raises(DataError, match="truncated: the header announces"):
        read_idx(tmp_path / "a")


def test_cifar_files_of_any_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frugal: None) -> None:
    monkeypatch.setattr("bayesprune.data.cifar.MOST_RECORDS", 3)
    for name, records in (("data_batch_1.bin", 4), ("test_batch.bin", 1)):
        (tmp_path / name).write_bytes(gzip.compress(bytes(records * RECORD)))
    with pytest.raises(DataError, match=r"data_batch_1\.bin: holds more than 3 records"):
        load(tmp_path)


@pytest.mark.parametrize("number", ["99999999999", "1000", "9" * 200])
def test_counts_in_names_of_files(tmp_path: Path, number: str, frugal: None) -> None:
    for name in ("1", number):
        (tmp_path / f"data_batch_{name}.bin").write_bytes(bytes(RECORD))
    with pytest.raises(DataError, match="has a number that no batch has"):
        load(tmp_path)


def _folder(tmp_path: Path, labels: bytes) -> Path:
    for part in ("train", "t10k"):
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(_idx(len(labels), 2, 2) + bytes(4 * len(labels)))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(_idx(len(labels)) + labels)
    return tmp_path


def test_one_damaged_label_is_no_class_of_its_own(tmp_path: Path) -> None:
    assert load(_folder(tmp_path, bytes([0, 1, 2, 1]))).classes == 3
    with pytest.raises(DataError) as caught:
        load(_folder(tmp_path, bytes([0, 1, 2, 255])))
    assert "252 of the 256 classes have no row (labels 3, 4, 5, 6, 7, …)" in str(caught.value)
    with pytest.raises(DataError, match=r"1 of the 4 classes have no row \(labels 3\)"):
        load(_folder(tmp_path, bytes([1, 2, 4, 1])))


def test_mnist_for_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(DataError, match=r"this user has no home .* Set XDG_CACHE_HOME"):
        cache_folder()


def test_a_home_of_nobody() -> None:
    with pytest.raises(DataError, match=r"^~nobody-of-this-name/x: there is no such home"):
        load("~nobody-of-this-name/x")
