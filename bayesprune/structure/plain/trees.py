"""How a network's outputs hang together, as plain data, and back."""

from __future__ import annotations

import keyword
from collections import OrderedDict, namedtuple
from typing import Any

from torch.utils._pytree import TreeSpec, tree_structure, tree_unflatten


def tree_data(spec: TreeSpec) -> Any:
    """Plain data of a structure.

    Args:
        spec: of outputs: tensors, tuples, named tuples, lists and dicts of them.

    Returns:
        A leaf's number, or a dict of one entry: its kind and its parts.

    Raises:
        ValueError: an object of another class, which could not be rebuilt without running its code.

    Example:
        >>> tree_data(tree_structure(({"a": 0}, 1)))
        {'tuple': [{'dict': [['a', 0]]}, 1]}
    """
    return _data(tree_unflatten(range(spec.num_leaves), spec))


def tree_from_data(data: Any, leaves: int) -> TreeSpec:
    """A structure from plain data.

    Args:
        data: as `tree_data` gives it.
        leaves: how many results there are.

    Returns:
        The structure.

    Raises:
        ValueError: the data are not what `tree_data` gives, or of another number of results.
    """
    numbers: list[int] = []
    spec = tree_structure(_tree(data, numbers))
    if numbers != list(range(leaves)):
        raise ValueError(f"the outputs have {len(numbers)} places for {leaves} results, or in another order")
    return spec


def _data(tree: Any) -> Any:
    if type(tree) is int:
        return tree
    if type(tree) in (tuple, list):
        return {type(tree).__name__: [_data(part) for part in tree]}
    if type(tree) in (dict, OrderedDict) and all(isinstance(key, str) for key in tree):
        return {type(tree).__name__: [[key, _data(part)] for key, part in tree.items()]}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        fields = zip(tree._fields, tree, strict=True)
        return {"namedtuple": [type(tree).__name__, *([key, _data(part)] for key, part in fields)]}
    raise ValueError(
        f"forward returns a {type(tree).__name__}, which cannot be rebuilt without running its code: return "
        "tensors in tuples, lists or dicts with names"
    )


def _tree(data: Any, numbers: list[int]) -> Any:
    if type(data) is int:
        numbers.append(data)
        return data
    if isinstance(data, dict) and len(data) == 1:
        ((kind, parts),) = data.items()
        if isinstance(parts, list) and kind in ("tuple", "list"):
            whole = [_tree(part, numbers) for part in parts]
            return tuple(whole) if kind == "tuple" else whole
        if isinstance(parts, list) and kind in ("dict", "OrderedDict"):
            pairs = [(_key(pair), _tree(pair[1], numbers)) for pair in parts]
            return dict(pairs) if kind == "dict" else OrderedDict(pairs)
        if isinstance(parts, list) and kind == "namedtuple" and parts:
            names = [_name(parts[0]), *(_name(_key(pair)) for pair in parts[1:])]
            return namedtuple(names[0], names[1:])(*(_tree(pair[1], numbers) for pair in parts[1:]))
    raise ValueError(f"{data!r} is no structure of outputs")


def _key(pair: Any) -> str:
    if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
        raise ValueError(f"{pair!r} is no name with a value")
    return str(pair[0])


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name[0] == "_":
        raise ValueError(f"{name!r} is no name of a field")
    return name
