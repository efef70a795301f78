"""SHA-256 of networks and of rows, the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn


def hash_of_network(network: nn.Module) -> str:
    """SHA-256 of a network's weights: what its state_dict holds, sorted by name.

    Of each tensor name, dtype, shape and the bytes of its numbers (little-endian, row by row) are taken,
    each with its length in front. What the network computes with them, its class and its layers' order, is
    not.

    Args:
        network: any module, on any device.

    Returns:
        64 hexadecimal digits.
    """
    return hash_of_tensors(network.state_dict())


def hash_of_rows(x: Tensor, y: Tensor | None) -> str:
    """SHA-256 of calibration rows, in their order.

    Args:
        x: (rows, ...), inputs.
        y: (rows, ...), labels, or None.

    Returns:
        64 hexadecimal digits.
    """
    return hash_of_tensors({"x": x} if y is None else {"x": x, "y": y})


def hash_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors.

    Args:
        tensors: name → tensor.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> hash_of_tensors({"a": torch.zeros(2)})[:8] == hash_of_tensors({"a": torch.zeros(2, 1)})[:8]
        False
    """
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        shape = "×".join(map(str, tensor.shape))
        for part in (name, str(tensor.dtype).removeprefix("torch."), shape):
            total.update(len(part.encode()).to_bytes(8, "little") + part.encode())
        content = _bytes(tensor)
        total.update(len(content).to_bytes(8, "little"))
        total.update(content)
    return total.hexdigest()


def digests_of_rows(x: Tensor) -> npt.NDArray[np.uint64]:
    """A digest of every row's inputs: the first eight bytes of their SHA-256.

    Args:
        x: (rows, ...), inputs; zeros of either sign are the same.

    Returns:
        (rows,), uint64. Two different rows share one with probability 2⁻⁶⁴.
    """
    x = x.detach().cpu().contiguous()
    x = x + 0.0 if x.is_floating_point() else x
    kind = f"{x.dtype}{tuple(x.shape[1:])}".encode()
    content = memoryview(_bytes(x))
    size = len(content) // max(len(x), 1)
    digests = [hashlib.sha256(kind + content[i * size : (i + 1) * size]).digest()[:8] for i in range(len(x))]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _bytes(tensor: Tensor) -> bytes:
    """The numbers, little-endian, row by row."""
    flat = tensor.reshape(-1).view(torch.uint8) if tensor.numel() else tensor.new_zeros(0, dtype=torch.uint8)
    if tensor.dtype == torch.bool:
        flat = tensor.reshape(-1).to(torch.uint8)
    content: bytes = flat.numpy().tobytes()
    if np.little_endian or tensor.element_size() == 1:
        return content
    return np.frombuffer(content, f">u{tensor.element_size()}").byteswap().tobytes()
