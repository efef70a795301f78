import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bayesprune.data import load, load_folder
from bayesprune.errors import DataError


@pytest.mark.parametrize(
    "names",
    [
        {"zipped": True},
        {"zipped": False},
        {"prefix": "emnist-letters-", "test": "test"},
    ],
)
def test_reads_a_folder_of_idx_names(write_set: Any, names: dict[str, Any]) -> None:
    data = load(write_set("clothes", **names))
    assert data.name == names.get("prefix", "clothes-").rstrip("-")
    assert data.classes == 3
    assert data.note == ""
    for split, rows in ((data.train, 12), (data.test, 6)):
        assert split.x.shape == (rows, 1, 28, 28)
        assert split.x.dtype == torch.float32
        assert 0 <= split.x.min() < split.x.max() <= 1
        assert split.y.dtype == torch.int64
        assert split.y.tolist() == [row % 3 for row in range(rows)]


def test_images_are_the_bytes_over_255(write_set: Any) -> None:
    data = load_folder(write_set())
    expected = np.random.default_rng(0).integers(0, 256, (12, 28, 28))
    assert torch.equal((data.train.x * 255).round().long().squeeze(1), torch.from_numpy(expected))


def test_labels_from_one_are_shifted_and_the_note_says_so(write_set: Any) -> None:
    data = load_folder(write_set(first_label=1))
    assert data.classes == 3
    assert data.train.y.min() == data.test.y.min() == 0
    assert "from 1 to 3" in data.note


def test_plain_files_win_over_zipped_ones(write_set: Any) -> None:
    folder = write_set(zipped=False)
    for path in list(folder.iterdir()):
        path.with_name(path.name + ".gz").write_bytes(b"rubbish")
    assert load_folder(folder).classes == 3


def test_several_sets_in_a_folder_are_named_and_one_can_be_chosen(write_set: Any) -> None:
    folder = write_set(prefix="emnist-letters-", test="test", first_label=1)
    write_set(prefix="emnist-digits-", test="test")
    with pytest.raises(DataError, match=r"several data sets.*emnist-digits.*emnist-letters"):
        load_folder(folder)
    chosen = load(folder / "emnist-letters")
    assert chosen.name == "emnist-letters"
    assert chosen.note


def test_missing_folder_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        load(tmp_path / "none")
    with pytest.raises(DataError, match="Did you mean 'mnist'"):
        load("mnits")


def test_all_missing_files_are_named(write_set: Any) -> None:
    folder = write_set()
    (folder / "t10k-images-idx3-ubyte.gz").unlink()
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="train labels, test images"):
        load_folder(folder)


def test_counts_must_agree(write_set: Any) -> None:
    folder = write_set()
    (folder / "train-labels-idx1-ubyte.gz").write_bytes((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    with pytest.raises(DataError, match=r"12 images but train-labels-idx1-ubyte.gz 6 labels"):
        load_folder(folder)


def test_images_must_have_height_and_width(write_set: Any) -> None:
    folder = write_set()
    (folder / "train-images-idx3-ubyte.gz").write_bytes((folder / "train-labels-idx1-ubyte.gz").read_bytes())
    with pytest.raises(DataError, match="holds 12 values, not rows × height × width"):
        load_folder(folder)


def test_images_of_any_size_are_read(write_set: Any) -> None:
    data = load(write_set(size=(9, 16)))
    assert data.train.x.shape == (12, 1, 9, 16) and data.test.x.shape == (6, 1, 9, 16)


def test_training_and_test_images_are_of_one_size(write_set: Any) -> None:
    folder, other = write_set(), write_set("other", size=(14, 28))
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes((other / "t10k-images-idx3-ubyte.gz").read_bytes())
    with pytest.raises(DataError, match="training images are 28 × 28, the test images 14 × 28"):
        load_folder(folder)


def test_test_labels_must_occur_in_training(write_set: Any) -> None:
    folder = write_set(zipped=False)
    path = folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(DataError, match=r"labels \[7\] occur in the test rows"):
        load_folder(folder)


def test_truncated_file_is_named(write_set: Any) -> None:
    path = write_set() / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: the gzip data are truncated"):
        load_folder(path.parent)


def test_a_data_dir_that_would_not_be_read_is_an_error(write_set: Any) -> None:
    with pytest.raises(DataError, match="says where MNIST lies"):
        load("digits", data_dir=write_set())


def test_gzip_files_written_by_other_tools_read(write_set: Any) -> None:
    path = write_set() / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=1))
    assert load_folder(path.parent).classes == 3
