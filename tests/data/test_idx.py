import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bayesprune.data import read_idx
from bayesprune.data.idx import parse_idx
from bayesprune.errors import DataError

IMAGES = np.arange(2 * 3 * 4).reshape(2, 3, 4)
HEADER = struct.pack(">BBBBIII", 0, 0, 8, 3, 2, 3, 4)
GOOD = HEADER + IMAGES.astype(np.uint8).tobytes()


@pytest.mark.parametrize("name", ["plain", "misleading.gz"])
@pytest.mark.parametrize("zipped", [False, True])
def test_reads_gzip_or_not_by_content(tmp_path: Path, name: str, zipped: bool) -> None:
    (tmp_path / name).write_bytes(gzip.compress(GOOD, mtime=0) if zipped else GOOD)
    read = read_idx(tmp_path / name)
    assert read.dtype == torch.uint8
    assert torch.equal(read, torch.from_numpy(IMAGES).to(torch.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "not an IDX file"),
        (b"\0\0\x0d\x01" + bytes(8), "type 0x0d"),
        (GOOD[:7], "ends inside its header"),
        (GOOD[:-1], r"truncated: the header announces 2 × 3 × 4 = 24 values, there are 23"),
        (GOOD + b"x", "too long"),
        (struct.pack(">BBBBI", 0, 0, 8, 1, 0), "holds no values"),
        (gzip.compress(GOOD, mtime=0)[:-5], "gzip data are truncated or corrupt"),
        (gzip.compress(GOOD, mtime=0)[:20], "gzip data are truncated or corrupt"),
        (
            gzip.compress(GOOD, mtime=0)[:12] + b"?????" + gzip.compress(GOOD)[17:],
            "gzip data are truncated or corrupt",
        ),
        (b"\x1f\x8b", "gzip data are truncated or corrupt"),
    ],
)
def test_every_defect_names_file_and_fault(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_idx(tmp_path / "none")
    with pytest.raises(DataError, match="directory"):
        read_idx(tmp_path)


@given(st.binary(max_size=64))
def test_any_bytes_give_a_tensor_or_a_data_error(content: bytes) -> None:
    try:
        read = parse_idx(content, Path("file"))
    except DataError as problem:
        assert "file" in str(problem)
    else:
        assert read.numel() == len(content) - 4 - 4 * content[3] > 0
