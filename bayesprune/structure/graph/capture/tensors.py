"""Parameters and buffers by their dotted names, and how large a tensor's numbers are."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def find_tensor(module: nn.Module, name: str) -> Tensor | None:
    """A parameter or buffer by its dotted name; None where there is none."""
    *path, last = name.split(".")
    for part in path:  # get_submodule asks every module four times over
        inside = module._modules.get(part)
        if inside is None:
            return None
        module = inside
    return module._parameters.get(last, module._buffers.get(last))


def set_tensor(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a parameter or buffer where a dotted name says."""
    owner, _, last = name.rpartition(".")
    parent = module.get_submodule(owner)
    for store in (parent._parameters, parent._buffers):
        store.pop(last, None)
    parent.__dict__.pop(last, None)
    if isinstance(tensor, nn.Parameter):
        parent._parameters[last] = tensor
    else:
        parent._buffers[last] = tensor


def largest(tensor: Tensor) -> float:
    """The largest absolute value of a tensor's finite numbers; 0 where it has none."""
    sizes = tensor.abs()
    finite = sizes[torch.isfinite(sizes)]
    return float(finite.max()) if finite.numel() else 0.0
