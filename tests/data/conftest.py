"""IDX files as users have them, written by hand rather than by the code under test."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Write = Callable[..., Path]


def idx_bytes(values: np.ndarray) -> bytes:
    return (
        struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
        + values.astype(np.uint8).tobytes()
    )


@pytest.fixture
def write_set(tmp_path: Path) -> Write:
    """Writes the four files of a data set; returns their folder."""

    def write(
        folder: str = "set",
        *,
        prefix: str = "",
        test: str = "t10k",
        zipped: bool = True,
        first_label: int = 0,
        size: tuple[int, int] = (28, 28),
    ) -> Path:
        generator = np.random.default_rng(0)
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        for part, rows in (("train", 12), (test, 6)):
            images = generator.integers(0, 256, (rows, *size))
            labels = np.arange(rows) % 3 + first_label
            for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
                path = place / f"{prefix}{part}-{kind}-ubyte{'.gz' if zipped else ''}"
                content = idx_bytes(values)
                path.write_bytes(gzip.compress(content) if zipped else content)
        return place

    return write
