"""IDX, the file format of MNIST: a header of big-endian integers, then bytes.

    00 00 08 n | size of dimension 1 | … | size of dimension n | the values, one byte each

Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import torch
from torch import Tensor

from bayesprune.errors import DataError
from bayesprune.files import path_of

GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTE = 0x08
CHUNK = 2**20
SMALL, MOST_COMPRESSED = 2**28, 200
"""Bytes that any file may hold, and beyond them how many for each byte of the file: pictures come to 10."""
REMEDY = "Fetch the file again, or put back an intact copy."


def read_idx(path: str | Path) -> Tensor:
    """Read an IDX file of unsigned bytes; gzip is recognised by its content, not by the file's name.

    Args:
        path: the file.

    Returns:
        uint8 tensor of the dimensions that the header names.

    Raises:
        DataError: the file is missing, empty, truncated, too long or not IDX.
    """
    path = path_of(path, "read_idx: the file", DataError)
    with opened(path) as stream:
        return _tensor(stream, path)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file's content as a stream, decompressed on the way where it is gzip.

    What reads from it says how much it wants: a few kilobytes of gzip can hold gigabytes.

    Args:
        path: the file.

    Yields:
        The stream.

    Raises:
        DataError: the file cannot be read, or its compression is corrupt.
    """
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            yield cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file. {REMEDY}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as problem:
        raise DataError(f"{path}: the gzip data are truncated or corrupt ({problem}). {REMEDY}") from None
    except OSError as problem:
        raise DataError(
            f"{path}: cannot be read ({problem.strerror}). Check that it is a file you may read."
        ) from None


def read_most(stream: BinaryIO, most: int) -> bytearray:
    """What is left of a stream, up to a number of bytes; memory is taken as it comes, not as it is announced.

    Args:
        stream: of ``opened``.
        most: bytes.
    """
    content = bytearray()
    while len(content) < most and (part := stream.read(min(CHUNK, most - len(content)))):
        content += part
    return content


def parse_idx(content: bytes, path: Path) -> Tensor:
    """Turn the bytes of an IDX file into a tensor.

    Args:
        content: the whole file, decompressed.
        path: where it came from, for the messages.

    Returns:
        uint8 tensor of the dimensions that the header names.

    Raises:
        DataError: as for `read_idx`.
    """
    return _tensor(io.BytesIO(content), path)


def _tensor(stream: BinaryIO, path: Path) -> Tensor:
    """Header first, then as many bytes as it announces, and one more to see that there are no others."""
    magic = read_most(stream, 4)
    if not magic:
        raise DataError(f"{path}: the file is empty. {REMEDY}")
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[3] == 0:
        raise DataError(f"{path}: starts with {magic.hex(' ')}, so it is not an IDX file. {REMEDY}")
    if magic[2] != UNSIGNED_BYTE:
        raise DataError(
            f"{path}: holds values of IDX type 0x{magic[2]:02x}; only unsigned bytes (0x08) are read. "
            "Store images and labels as bytes."
        )
    header = read_most(stream, 4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise DataError(f"{path}: ends inside its header, after {4 + len(header)} bytes. {REMEDY}")
    shape = struct.unpack(f">{magic[3]}I", header)
    size, expected = " × ".join(map(str, shape)), math.prod(shape)
    if expected > max(SMALL, MOST_COMPRESSED * path.stat().st_size if path.is_file() else 0):
        raise DataError(
            f"{path}: announces {size} = {expected:,} values, more than a file of its size can be. {REMEDY}"
        )
    content = read_most(stream, expected + 1)
    if len(content) != expected:
        fault, more = ("truncated", "") if len(content) < expected else ("too long", " and more")
        raise DataError(
            f"{path}: is {fault}: the header announces {size} = {expected:,} values, there are "
            f"{min(len(content), expected):,}{more}. {REMEDY}"
        )
    if expected == 0:
        raise DataError(f"{path}: holds no values (its header says {size}). {REMEDY}")
    return torch.frombuffer(content, dtype=torch.uint8).reshape(shape)
