"""Parameters that a likelihood or a prior computes with and does not hold: they would never take a step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

DEPTH = 4
"""How many containers, functions and objects deep a function is searched."""


def leaves(value: Tensor) -> list[Tensor]:
    """The tensors that a value's gradient would go to.

    Args:
        value: (...), any tensor.

    Returns:
        Leaves of its graph, each once; none where nothing is differentiated.

    Example:
        >>> import torch
        >>> scale = torch.ones(2, requires_grad=True)
        >>> leaves((3 * scale).sum())[0] is scale
        True
    """
    if value.grad_fn is None:
        return [value] if value.requires_grad else []
    found, seen = {}, set()
    ahead: list[Any] = [value.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found[id(leaf)] = leaf
        ahead.extend(function for function, _ in node.next_functions)
    return list(found.values())


def strangers(value: Tensor, known: Iterable[Tensor]) -> list[Tensor]:
    """The leaves of a value's graph that are none of the known parameters."""
    held = {id(tensor) for tensor in known}
    return [leaf for leaf in leaves(value) if id(leaf) not in held]


def captured(function: Callable[..., Any]) -> dict[str, Tensor]:
    """Trainable tensors that a function brings along without being asked for them.

    Args:
        function: searched in its closure, default arguments, the globals that it names, the object that it is
            a method of, and what ``functools.partial`` holds. A module's own parameters are its own.

    Returns:
        Name → tensor; a module that is brought along gives its trainable parameters.

    Example:
        >>> import torch
        >>> log_scale = nn.Parameter(torch.zeros(()))
        >>> list(captured(lambda outputs: outputs / log_scale.exp()))
        ['log_scale']
    """
    own = {id(p) for p in function.parameters()} if isinstance(function, nn.Module) else set()
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in _inside(function):
        _search(name, value, DEPTH, found, seen)
    return {name: tensor for name, tensor in found.items() if id(tensor) not in own}


def _search(name: str, value: Any, depth: int, found: dict[str, Tensor], seen: set[int]) -> None:
    if id(value) in seen or depth == 0:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        if value.requires_grad:
            found[name] = value
    elif isinstance(value, nn.Module):
        found.update({f"{name}.{n}": p for n, p in value.named_parameters() if p.requires_grad})
    else:
        for inner, part in _inside(value):
            _search(f"{name}{inner}" if inner[:1] in ".[" else inner, part, depth - 1, found, seen)


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """Name → what a function, a container or an object of a user's class holds."""
    if isinstance(value, functools.partial):
        yield from (("func", value.func), *((f"[{i}]", a) for i, a in enumerate(value.args)))
        yield from value.keywords.items()
    elif isinstance(value, MethodType):
        yield from ((value.__self__.__class__.__name__, value.__self__), ("method", value.__func__))
    elif isinstance(value, FunctionType):
        yield from _of_function(value)
    elif isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{i}]", part) for i, part in enumerate(value))
    elif isinstance(value, nn.Module):
        yield "forward", type(value).forward
    elif _is_own(value):
        yield from ((f".{key}", part) for key, part in vars(value).items())
        if callable(value):
            yield "__call__", type(value).__call__


def _of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # a name that has no value yet
            continue
    yield from ((f"[default {i}]", part) for i, part in enumerate(function.__defaults__ or ()))
    yield from (function.__kwdefaults__ or {}).items()
    for name in _global_names(function.__code__):
        if name in function.__globals__:
            yield name, function.__globals__[name]


def _global_names(code: CodeType) -> Iterator[str]:
    """Names in a function's code, and in that of functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)


def _is_own(value: Any) -> bool:
    """Whether it is an object of somebody's own class, not a type or a part of a library."""
    outside = ("builtins", "torch", "pyro", "numpy", "collections", "types")
    module = str(type(value).__module__).split(".")[0]
    return hasattr(value, "__dict__") and not isinstance(value, type) and module not in outside
