"""A plain layer as data: its class, by name, and the arguments that its constructor takes."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

NOT_ARGUMENTS = {"self", "device", "dtype", "min_value", "max_value", "init"}
"""Constructor parameters that say where a layer lives or how it begins, or are deprecated spellings."""


def arguments_of(kind: type[nn.Module]) -> dict[str, Any]:
    """Constructor parameters of a layer, with their defaults.

    Args:
        kind: class of the layer.

    Returns:
        Name → default; those that say nothing about a finished layer are left out.
    """
    parameters = inspect.signature(kind.__init__).parameters.values()
    named = {p.name: p.default for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    return {n: default for n, default in named.items() if n not in NOT_ARGUMENTS and n[0] != "_"}


def described(layer: nn.Module) -> dict[str, Any]:
    """The arguments that build a layer like this one; those at their default are left out.

    Args:
        layer: of a class of ``torch.nn`` that keeps its arguments as attributes.

    Returns:
        Name → value.

    Example:
        >>> described(nn.Linear(3, 2, bias=False))
        {'in_features': 3, 'out_features': 2, 'bias': False}
    """
    arguments = {}
    for key, default in arguments_of(type(layer)).items():
        value = getattr(layer, key)
        if key == "bias":
            affine = getattr(layer, "affine", getattr(layer, "elementwise_affine", True))
            value = value is not None or not affine
        if value != default:  # what is left out reads the same in versions of torch that lack the argument
            arguments[key] = value
    return arguments


def built(kind: type[nn.Module], arguments: dict[str, Any]) -> nn.Module:
    """A layer from its arguments, without numbers: on the meta device, and nothing is drawn.

    Args:
        kind: class of the layer.
        arguments: as `described` gives them; lists stand for tuples.

    Returns:
        The layer.

    Raises:
        ValueError: an argument that the class does not have.
        Exception: what the constructor raises on values that it does not take.
    """
    unknown = set(arguments) - set(arguments_of(kind))
    if unknown:
        raise ValueError(f"unknown arguments {sorted(unknown)}")
    with torch.device("meta"):  # no memory, and no random numbers drawn for weights that are replaced
        return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in arguments.items()})
