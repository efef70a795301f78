"""CIFAR-10's records, written by hand: what is read is what was written, and every defect is named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bayesprune.data import cifar10, load
from bayesprune.errors import DataError

Write = Callable[..., Path]
ROWS = 4


def record(label: int, picture: np.ndarray) -> bytes:
    """A label, then the red, green and blue values of a (32, 32, 3) picture, each row by row."""
    return bytes([label]) + b"".join(picture[:, :, c].astype(np.uint8).tobytes() for c in range(3))


def pictures(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, 32, 32, 3))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes training batches and the test batch; returns their folder."""

    def write(batches: tuple[int, ...] = (1, 2, 3, 4, 5), place: str = "cifar") -> Path:
        folder = tmp_path / place
        folder.mkdir(parents=True, exist_ok=True)
        for number in batches:
            rows = [record((number + i) % 10, p) for i, p in enumerate(pictures(ROWS, number))]
            (folder / f"data_batch_{number}.bin").write_bytes(b"".join(rows))
        rows = [record(i % 10, p) for i, p in enumerate(pictures(3, 0))]
        (folder / "test_batch.bin").write_bytes(b"".join(rows))
        return folder

    return write


def test_pixels_and_labels_are_where_they_were_written(write: Write) -> None:
    data = load(write())
    assert (data.name, data.classes) == ("cifar10", 10)
    assert data.train.x.shape == (5 * ROWS, 3, 32, 32) and data.train.x.dtype == torch.float32
    assert data.test.x.shape == (3, 3, 32, 32) and data.test.y.tolist() == [0, 1, 2]
    assert data.train.y.tolist() == [(n + i) % 10 for n in (1, 2, 3, 4, 5) for i in range(ROWS)]
    written = np.concatenate([pictures(ROWS, n) for n in (1, 2, 3, 4, 5)]) / 255  # (rows, 32, 32, 3)
    mean, std = written.mean((0, 1, 2)), written.std((0, 1, 2))
    expected = torch.from_numpy((written - mean) / std).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(data.train.x, expected, rtol=1e-5, atol=1e-5)


def test_the_test_rows_are_normalised_by_the_training_rows(write: Write) -> None:
    data = cifar10(write())
    torch.testing.assert_close(data.train.x.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(data.train.x.std((0, 2, 3)), torch.ones(3), rtol=0, atol=1e-3)
    written = np.concatenate([pictures(ROWS, n) for n in (1, 2, 3, 4, 5)]) / 255
    expected = (pictures(3, 0) / 255 - written.mean((0, 1, 2))) / written.std((0, 1, 2))
    torch.testing.assert_close(
        data.test.x, torch.from_numpy(expected).permute(0, 3, 1, 2).float(), rtol=1e-5, atol=1e-5
    )
    assert f"{written[..., 0].mean():.4f}" in data.note and f"{written[..., 2].std():.4f}" in data.note


def test_a_channel_that_never_changes_is_centred(write: Write) -> None:
    folder = write((1,))
    flat = pictures(ROWS, 1)
    flat[..., 1] = 77
    (folder / "data_batch_1.bin").write_bytes(b"".join(record(i, p) for i, p in enumerate(flat)))
    x = cifar10(folder).train.x
    assert bool(torch.isfinite(x).all()) and float(x[:, 1].abs().max()) < 1e-6


def test_the_folder_above_will_do(write: Write, tmp_path: Path) -> None:
    write(place="cifar-10-batches-bin")
    assert len(load(tmp_path).train) == 5 * ROWS


def test_fewer_batches_are_read_and_the_note_says_so(write: Write) -> None:
    data = load(write((1, 2)))
    assert len(data.train) == 2 * ROWS and "Only 2 of its 5 training batches" in data.note
    assert "Only" not in load(write()).note


def test_missing_files_are_named(write: Write, tmp_path: Path) -> None:
    folder = write((1, 2, 4))
    (folder / "test_batch.bin").unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_3\.bin, test_batch\.bin"):
        load(folder)
    for number in (1, 2, 4):
        (folder / f"data_batch_{number}.bin").unlink()
    with pytest.raises(DataError, match="holds none of CIFAR-10's files"):
        cifar10(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (bytes(3072), "has 3,072 bytes, which is no multiple of the 3,073"),
        (bytes(3073 + 10), "1 records and 10 bytes"),
        (bytes(3073) + b"\x0a" + bytes(3072), "record 1 has label 10"),
    ],
)
def test_every_defect_names_file_and_fault(write: Write, content: bytes, message: str) -> None:
    path = write() / "data_batch_2.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load(path.parent)
    assert str(path) in str(caught.value) and "cifar-10-binary.tar.gz" in str(caught.value)


def test_pickles_are_refused(tmp_path: Path) -> None:
    for name in ("data_batch_1", "test_batch"):
        (tmp_path / name).write_bytes(b"\x80\x02.")
    with pytest.raises(DataError, match=r"pickled.*Unpack cifar-10-binary"):
        load(tmp_path)


def test_a_folder_of_both_kinds_is_refused(write: Write, write_set: Write) -> None:
    folder = write(place="set")
    write_set("set")
    with pytest.raises(DataError, match="IDX files and CIFAR-10's files"):
        load(folder)
