"""The file of tensors: written from a network, read and checked against what it was written with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from bayesprune.errors import CheckpointError

TENSORS = "pruned.safetensors"
"""The file of a saved network that holds its tensors."""


ARCHITECTURE_DIGEST = "architecture_sha256"
"""Entry of the file's metadata that says which description its tensors belong to."""


def tensor_bytes(tensors: Mapping[str, Tensor], architecture: str) -> bytes:
    """The content of a file of tensors.

    Args:
        tensors: name → tensor, on any device.
        architecture: digest of the description that they belong to.

    Returns:
        The safetensors format; tensors that share memory are written one by one.
    """
    content = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
    return tensors_to_bytes(content, metadata={ARCHITECTURE_DIGEST: architecture})


def architecture_of(content: bytes) -> str | None:
    """The digest that a file of tensors holds; None where it holds none.

    Args:
        content: of a file that has been read: eight bytes that say how long the header is, and the header.
    """
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    found = header.get("__metadata__", {}).get(ARCHITECTURE_DIGEST)
    return found if isinstance(found, str) else None


def digest(content: bytes) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path, sha256: str, architecture: str, beside: str) -> dict[str, Tensor]:
    """Read a file of tensors.

    Args:
        path: the file.
        sha256: of its content when it was written.
        architecture: digest of the description beside it.
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
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as problem:
        # beyond the format's own errors: types and shapes in the header that PyTorch does not have
        raise CheckpointError(
            f"{path}: is truncated or corrupt ({problem}). Export the network again."
        ) from None
    if digest(content) != sha256:
        raise CheckpointError(
            f"{path}: is not the file that {beside} was written with. Export the network again."
        )
    if architecture_of(content) != architecture:
        raise CheckpointError(
            f"{path.parent / beside}: is not as it was written: its content does not have the checksum that "
            f"{path.name} holds. The file was changed; export the network again."
        )
    return tensors
