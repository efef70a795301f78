"""The file of tensors: written from a network, read and checked against what it was written with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from bayesprune.errors import CheckpointError

TENSORS = "pruned.safetensors"
"""The file of a saved network that holds its tensors."""


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """The content of a file of tensors.

    Args:
        tensors: name → tensor, on any device.

    Returns:
        The safetensors format; tensors that share memory are written one by one.
    """
    return tensors_to_bytes({n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()})


def digest(content: bytes) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path, sha256: str, beside: str) -> dict[str, Tensor]:
    """Read a file of tensors.

    Args:
        path: the file.
        sha256: of its content when it was written.
        beside: name of the file that says so.

    Returns:
        Name → tensor, on the CPU.

    Raises:
        CheckpointError: the file is missing, truncated, or another one.
    """
    try:
        content = path.read_bytes()
        tensors = tensors_from_bytes(content)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file. Export the network again.") from None
    except (OSError, SafetensorError) as problem:
        raise CheckpointError(
            f"{path}: is truncated or corrupt ({problem}). Export the network again."
        ) from None
    if digest(content) != sha256:
        raise CheckpointError(
            f"{path}: is not the file that {beside} was written with. Export the network again."
        )
    return tensors
