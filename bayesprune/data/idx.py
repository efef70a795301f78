"""IDX, the file format of MNIST: a header of big-endian integers, then bytes.

    00 00 08 n | size of dimension 1 | … | size of dimension n | the values, one byte each

Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from bayesprune.errors import DataError
from bayesprune.files import path_of

GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTE = 0x08
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
    return parse_idx(inflate(path), path)


def inflate(path: Path) -> bytes:
    """Content of a file, decompressed where it is gzip.

    Args:
        path: the file.

    Returns:
        Its bytes.

    Raises:
        DataError: the file cannot be read, or its compression is corrupt.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file. {REMEDY}") from None
    except OSError as problem:
        raise DataError(
            f"{path}: cannot be read ({problem.strerror}). Check that it is a file you may read."
        ) from None
    if not raw.startswith(GZIP_MAGIC):
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as problem:
        raise DataError(f"{path}: the gzip data are truncated or corrupt ({problem}). {REMEDY}") from None


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
    if not content:
        raise DataError(f"{path}: the file is empty. {REMEDY}")
    if len(content) < 4 or content[:2] != b"\0\0" or content[3] == 0:
        raise DataError(f"{path}: starts with {content[:4].hex(' ')}, so it is not an IDX file. {REMEDY}")
    if content[2] != UNSIGNED_BYTE:
        raise DataError(
            f"{path}: holds values of IDX type 0x{content[2]:02x}; only unsigned bytes (0x08) are read. "
            "Store images and labels as bytes."
        )
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise DataError(f"{path}: ends inside its header, after {len(content)} bytes. {REMEDY}")
    shape = struct.unpack(f">{content[3]}I", content[4:header])
    expected, found = math.prod(shape), len(content) - header
    if found != expected:
        fault = "truncated" if found < expected else "too long"
        size = " × ".join(map(str, shape))
        raise DataError(
            f"{path}: is {fault}: the header announces {size} = {expected:,} values, there are {found:,}. "
            f"{REMEDY}"
        )
    if expected == 0:
        raise DataError(f"{path}: holds no values (its header says {' × '.join(map(str, shape))}). {REMEDY}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).reshape(shape)
