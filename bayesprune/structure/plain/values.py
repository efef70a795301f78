"""Arguments of operations as plain data, which JSON can hold, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx


def _named(kind: type) -> dict[str, Any]:
    """PyTorch's constants of a kind, by name."""
    return {str(value).removeprefix("torch."): value for value in vars(torch).values() if type(value) is kind}


CONSTANTS: dict[str, dict[str, Any]] = {
    "dtype": _named(torch.dtype),
    "layout": _named(torch.layout),
    "memory_format": _named(torch.memory_format),
}
"""Kind → name → value."""


def encoded(value: Any) -> Any:
    """An argument as plain data.

    Args:
        value: number, string, None, dtype, layout, memory format, device, node; or a list of such.

    Returns:
        The same in dicts, lists and numbers. A device is told as the CPU, where networks are loaded.

    Raises:
        ValueError: a value of another kind.

    Example:
        >>> encoded([torch.float32, 1, float("inf")])
        [{'dtype': 'float32'}, 1, {'float': 'inf'}]
    """
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        return [encoded(part) for part in value]
    if isinstance(value, torch.device):
        return {"device": "cpu"}
    for kind, names in CONSTANTS.items():
        if type(value) is type(next(iter(names.values()))):
            return {kind: str(value).removeprefix("torch.")}
    raise ValueError(f"cannot write down the argument {value!r}, a {type(value).__name__}")


def decoded(data: Any, nodes: Mapping[str, fx.Node]) -> Any:
    """An argument from plain data.

    Args:
        data: as `encoded` gives it.
        nodes: name → node, of those that come before.

    Returns:
        The argument.

    Raises:
        ValueError: it is nothing that `encoded` gives, or names a node that does not come before.
    """
    if data is None or type(data) in (bool, int, float, str):
        return data
    if isinstance(data, list):
        return [decoded(part, nodes) for part in data]
    if not isinstance(data, dict) or len(data) != 1:
        raise ValueError(f"{data!r} is no argument")
    (kind, name), = data.items()  # fmt: skip
    if not isinstance(name, str):
        raise ValueError(f"{data!r} is no argument")
    if kind == "node":
        if name not in nodes:
            raise ValueError(f"it reads {name!r}, which has not been computed")
        return nodes[name]
    if kind == "float" and name in ("inf", "-inf", "nan"):
        return float(name)
    if kind == "device" and name == "cpu":
        return torch.device("cpu")
    if name in CONSTANTS.get(kind, {}):
        return CONSTANTS[kind][name]
    raise ValueError(f"{data!r} is no argument")
