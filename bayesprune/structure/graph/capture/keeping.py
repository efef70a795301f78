"""Tensors that modules keep in Python, beside parameters and buffers: has a run changed them, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

PARTS = set(vars(nn.Module()))
"""Attributes of every module."""

HOLDING = (Tensor, list, tuple, dict)
"""What may hold tensors."""


def kept_in(module: nn.Module) -> Iterator[Tensor]:
    """Tensors in a module's attributes of its own, which are neither parameters nor buffers."""
    for value in _own(module).values():
        yield from (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


class Kept:
    """What the modules of a network keep before a run whose numbers are not to be kept.

    Args:
        network: left alone.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._before = self._now()
        self._values = [(x, x.clone()) for m in network.modules() for x in kept_in(m)]
        self._stores = [
            (store, dict(store))
            for module in network.modules()
            for store in (vars(module), module._parameters, module._buffers)
        ]
        self._inside = [
            (container, container.copy())
            for module in network.modules()
            for value in _own(module).values()
            for container in _containers(value)
        ]

    def changed(self) -> bool:
        """Whether something was written into, taken away or put there."""
        return self._now() != self._before

    @torch.no_grad()
    def restore_(self) -> None:
        """Keep what was kept before; numbers and other plain values stay as they are now."""
        for container, content in self._inside:
            container.clear()
            container.extend(content) if isinstance(container, list) else container.update(content)
        for store, content in self._stores:
            now = {**content, **store}
            store.clear()
            for name, value in now.items():
                if name in content and (_holds(value) or _holds(content[name])):
                    store[name] = content[name]
                elif not _holds(value):
                    store[name] = value
        for tensor, value in self._values:
            tensor.copy_(value)

    def _now(self) -> list[tuple[int, str, list[tuple[int, int]]]]:
        """Attributes, and which tensors they are, and how often these were written into; buffers may be."""
        return [
            (id(module), name, [(id(x), x._version * moves) for x in tree_leaves(value) if _is(x)])
            for module in self._network.modules()
            for moves, store in ((1, _own(module)), (1, module._parameters), (0, module._buffers))
            for name, value in store.items()
            if _holds(value)
        ]


def _own(module: nn.Module) -> dict[str, Any]:
    """Attributes of a module that may hold tensors, parameters and buffers apart."""
    return {k: value for k, value in vars(module).items() if k not in PARTS and isinstance(value, HOLDING)}


def _containers(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple | dict):
        if not isinstance(value, tuple):
            yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _containers(part)


def _is(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


def _holds(value: Any) -> bool:
    return any(map(_is, tree_leaves(value))) if isinstance(value, HOLDING) else False
