"""SHA-256 of networks and of rows, the same on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bayesprune.errors import CertificateError
from bayesprune.export.form import computed, form_of
from bayesprune.rows.call import Call, Inputs, call_of
from bayesprune.structure.plain import PlainGraph


def hash_of_weights(network: nn.Module) -> str:
    """SHA-256 of a network's weights: what its state_dict holds, sorted by name.

    Of each tensor name, dtype, shape and the bytes of its numbers (little-endian, row by row) are taken,
    each with its length in front. What the network computes with them, its class and its layers' order, is
    not: that is ``hash_of_network``.

    Args:
        network: any module, on any device.

    Returns:
        64 hexadecimal digits.
    """
    return hash_of_tensors(network.state_dict())


def hash_of_network(network: nn.Module, example: Any = None) -> str:
    """SHA-256 of all that decides what a network computes: layers or operations, weights, constants.

    Hashed is what ``bayesprune.save`` would write, as JSON with sorted keys and no white space, and then
    every tensor as in ``hash_of_weights``, those of no state_dict too. A network has the same hash in memory
    and once it was saved and loaded; a layer, an argument, an operation or a constant more gives another.

    Args:
        network: any that can be saved, on any device.
        example: (rows, ...), inputs that it accepts; sequences of plain layers, and what ``bayesprune.load``
            gives, need none.

    Returns:
        64 hexadecimal digits.

    Raises:
        UnsupportedNetworkError: what it computes cannot be written down.
        CertificateError: an example is needed.

    Example:
        >>> one, other = nn.Sequential(nn.ReLU(), nn.Tanh()), nn.Sequential(nn.Tanh(), nn.ReLU())
        >>> hash_of_weights(one) == hash_of_weights(other), hash_of_network(one) == hash_of_network(other)
        (True, False)
    """
    if example is None and not isinstance(network, nn.Sequential | PlainGraph):
        raise CertificateError(
            f"What a {type(network).__name__} computes is found by running it: give rows that it accepts, "
            "hash_of_network(network, x[:2])."
        )
    description, tensors = form_of(network, None if example is None else call_of(network, example))
    text = json.dumps(computed(description), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{text}\n{hash_of_tensors(tensors)}".encode()).hexdigest()


def hash_of_rows(x: Inputs, y: Tensor | None) -> str:
    """SHA-256 of calibration rows, in their order.

    Args:
        x: (rows, ...), inputs.
        y: (rows, ...), labels, or None.

    Returns:
        64 hexadecimal digits.
    """
    found = {"x": x} if isinstance(x, Tensor) else dict(zip(_names(x), x.tensors, strict=True))
    return hash_of_tensors(found if y is None else {**found, "y": y})


def _names(x: Call) -> list[str]:
    return [f"x/{name}" for name in x.form.names]


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


def _bytes(tensor: Tensor) -> bytes:
    """The numbers, little-endian, row by row."""
    flat = tensor.reshape(-1).view(torch.uint8) if tensor.numel() else tensor.new_zeros(0, dtype=torch.uint8)
    if tensor.dtype == torch.bool:
        flat = tensor.reshape(-1).to(torch.uint8)
    content: bytes = flat.numpy().tobytes()
    if np.little_endian or tensor.element_size() == 1:
        return content
    return np.frombuffer(content, f">u{tensor.element_size()}").byteswap().tobytes()
