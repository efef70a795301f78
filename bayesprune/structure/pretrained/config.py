"""Configs as values: their fields, and the network that a class makes of one, by names and shapes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

Path = tuple[str | int, ...]
"""Where a field is: its name, below those of the configs that it is in; a number in a list comes last."""

Shapes = dict[str, tuple[int, ...]]
"""Tensor of a ``state_dict`` → its shape."""


def is_config(value: Any) -> bool:
    """Whether something turns into a dict and back."""
    return callable(getattr(value, "to_dict", None)) and callable(getattr(type(value), "from_dict", None))


def is_pretrained(module: nn.Module) -> bool:
    """Whether a module has a config, and is saved with it."""
    saves = callable(getattr(type(module), "save_pretrained", None))
    return saves and is_config(getattr(module, "config", None))


def outermost(network: nn.Module) -> dict[str, nn.Module]:
    """Name → module, of the parts of a network that have a config and are in no other such part."""
    found: dict[str, nn.Module] = {}
    for name, module in network.named_modules():
        inside = any(f"{name}.".startswith(f"{outer}." if outer else "") for outer in found)
        if not inside and is_pretrained(module):
            found[name] = module
    return found


def fields(config: Any, prefix: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The fields of a config, and of the configs in it, that may be sizes: whole numbers, lists, and None."""
    for name, value in config.to_dict().items():
        inner = getattr(config, name, None)
        if is_config(inner):
            yield from fields(inner, (*prefix, name))
        elif value is None or type(value) is int:
            yield (*prefix, name), value
        elif isinstance(value, list | tuple):
            yield (*prefix, name), list(value)
            for number, element in enumerate(value):
                if type(element) is int:
                    yield (*prefix, name, number), element


def changed(config: Any, changes: Mapping[Path, Any]) -> Any:
    """The config that is loaded when this one is saved with other values in some fields.

    Args:
        config: left alone.
        changes: field → value.
    """
    values = copy.deepcopy(config.to_dict())
    for path, value in sorted(changes.items(), key=lambda change: len(change[0])):
        holder: Any = values
        for name in path[:-1]:
            if isinstance(holder[name], tuple):
                holder[name] = list(holder[name])
            holder = holder[name]
        holder[path[-1]] = value
    return type(config).from_dict(values)


def made(kind: type[nn.Module], config: Any) -> nn.Module:
    """A network of a class as its config says, without numbers: no memory, and no random draws are taken."""
    with torch.device("meta"), torch.random.fork_rng():
        return kind(config)


def shapes(module: nn.Module) -> Shapes:
    """The shapes of a module's parameters and buffers, of all that it saves."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict(keep_vars=True).items()}


def written(path: Path) -> str:
    """A field as it is written in Python."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
