"""Tensors in tuples, dicts and records: taken apart into a list, and put together again.

What is left when the tensors are taken out is a *tree*: the same nesting, with a ``Leaf`` in each tensor's
place. Whatever else stands in it (None, booleans, numbers, strings) is a constant of the call.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Computed = Tensor | torch.SymInt | torch.SymFloat | torch.SymBool
"""What a traced forward computes: tensors, and sizes that are free while it is traced."""


@dataclass(frozen=True)
class Leaf:
    """The place of a tensor.

    Attributes:
        number: which of the tensors, from 0.
    """

    number: int


@dataclass(frozen=True)
class Record:
    """A dataclass, or a dict of a class of its own that has its entries as attributes (``ModelOutput``).

    Attributes:
        kind: its class; it is called with the entries by name.
        entries: name and tree of each.
    """

    kind: type
    entries: tuple[tuple[str, Any], ...]


def taken_apart(value: Any) -> tuple[list[Any], Any]:
    """The tensors of a nested value, and where each was.

    Args:
        value: tensors in tuples, named tuples, lists, dicts with names, dataclasses, ``ModelOutput``s.

    Returns:
        The tensors in order, and the tree. An object of another class, a cache for one, is None in the tree.

    Example:
        >>> taken_apart({"ids": torch.zeros(1), "more": (None, torch.ones(1))})
        ([tensor([0.]), tensor([1.])], {'ids': Leaf(number=0), 'more': (None, Leaf(number=1))})
    """
    leaves: list[Any] = []
    return leaves, _taken(value, leaves)


def _taken(value: Any, leaves: list[Any]) -> Any:
    if isinstance(value, Computed):
        leaves.append(value)
        return Leaf(len(leaves) - 1)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        parts = [_taken(part, leaves) for part in value]
        return _sequence(value, parts)
    if type(value) in (dict, OrderedDict):
        return type(value)((key, _taken(part, leaves)) for key, part in value.items())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        return Record(type(value), tuple((name, _taken(getattr(value, name), leaves)) for name in names))
    return {key: _taken(part, leaves) for key, part in value.items()} if isinstance(value, Mapping) else None


def _sequence(like: Any, parts: Sequence[Any]) -> Any:
    if hasattr(like, "_fields"):
        return type(like)(*parts)
    return list(parts) if isinstance(like, list) else tuple(parts)


def put_together(tree: Any, leaves: Sequence[Any]) -> Any:
    """A nested value from its tree.

    Args:
        tree: as ``taken_apart`` gives it.
        leaves: what goes into the places.

    Example:
        >>> put_together((Leaf(1), {"a": Leaf(0)}), ["x", "y"])
        ('y', {'a': 'x'})
    """
    if isinstance(tree, Leaf):
        return leaves[tree.number]
    if isinstance(tree, tuple | list):
        return _sequence(tree, [put_together(part, leaves) for part in tree])
    if isinstance(tree, dict):
        return type(tree)((key, put_together(part, leaves)) for key, part in tree.items())
    if isinstance(tree, Record):
        return tree.kind(**{name: put_together(part, leaves) for name, part in tree.entries})
    return tree


def leaf_names(tree: Any, name: str = "") -> list[str]:
    """What each tensor of a tree is called, after the names and places that lead to it.

    Example:
        >>> leaf_names({"ids": Leaf(0), "more": (None, Leaf(1))})
        ['ids', 'more_1']
    """
    if isinstance(tree, Leaf):
        return [name]
    inside = name and f"{name}_"
    if isinstance(tree, Record):
        tree = dict(tree.entries)
    pairs = (
        tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, tuple | list) else ()
    )
    return [found for key, part in pairs for found in leaf_names(part, f"{inside}{key}")]
