"""How a network's inputs or outputs hang together, as plain data, and back."""

from __future__ import annotations

import keyword
from collections import OrderedDict, namedtuple
from typing import Any

from torch.utils._pytree import Context, KeyEntry, MappingKey, register_pytree_node

from bayesprune.rows.nested import Leaf, Record


class Named(OrderedDict[str, Any]):
    """Results with names, in place of a class of the user's: ``y["logits"]``, ``y.logits`` or ``y[0]``.

    Results that are None are left out, as in a ``ModelOutput``, and None as attributes.

    Example:
        >>> found = Named(loss=None, logits=3)
        >>> found.logits, found[0], found["logits"], found.loss
        (3, 3, 3, None)
    """

    def __init__(self, *given: Any, **entries: Any) -> None:
        super().__init__(*given, **{name: value for name, value in entries.items() if value is not None})
        self.__dict__.update(entries, **self)

    def __getitem__(self, key: Any) -> Any:
        return list(self.values())[key] if isinstance(key, int | slice) else super().__getitem__(key)


def _flatten(named: Named) -> tuple[list[Any], Context]:
    return list(named.values()), list(named)


def _flatten_with_keys(named: Named) -> tuple[list[tuple[KeyEntry, Any]], Context]:
    return [(MappingKey(name), value) for name, value in named.items()], list(named)


def _unflatten(values: Any, names: Context) -> Named:
    return Named(zip(names, values, strict=True))


register_pytree_node(  # as a ModelOutput is: torch.export, gathering and moving results look inside
    Named,
    _flatten,
    _unflatten,
    serialized_type_name=f"{Named.__module__}.{Named.__name__}",
    flatten_with_keys_fn=_flatten_with_keys,
)


def tree_data(tree: Any) -> Any:
    """Plain data of a structure.

    Args:
        tree: tuples, named tuples, lists, dicts and records of leaves and constants.

    Returns:
        A leaf's number, or a dict of one entry: its kind and its parts.

    Raises:
        ValueError: names that are none.

    Example:
        >>> tree_data(({"a": Leaf(0)}, Leaf(1), None))
        {'tuple': [{'dict': [['a', 0]]}, 1, {'value': None}]}
    """
    if isinstance(tree, Leaf):
        return tree.number
    if type(tree) in (tuple, list):
        return {type(tree).__name__: [tree_data(part) for part in tree]}
    if type(tree) in (dict, OrderedDict) and all(isinstance(key, str) for key in tree):
        return {type(tree).__name__: [[key, tree_data(part)] for key, part in tree.items()]}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        fields = zip(tree._fields, tree, strict=True)
        return {"namedtuple": [type(tree).__name__, *([key, tree_data(part)] for key, part in fields)]}
    if isinstance(tree, Record):
        return {"record": [[key, tree_data(part)] for key, part in tree.entries]}
    if tree is None or isinstance(tree, bool | int | float | str):
        return {"value": tree}
    raise ValueError(
        f"forward returns a {type(tree).__name__}, which cannot be rebuilt without running its code: return "
        "tensors in tuples, lists or dicts with names"
    )


def tree_from_data(data: Any, leaves: int) -> Any:
    """A structure from plain data.

    Args:
        data: as `tree_data` gives it.
        leaves: how many tensors there are.

    Returns:
        The structure; records are ``Named``, whatever class they were of.

    Raises:
        ValueError: the data are not what `tree_data` gives, or of another number of results.
    """
    numbers: list[int] = []
    tree = _tree(data, numbers)
    if numbers != list(range(leaves)):
        raise ValueError(f"the outputs have {len(numbers)} places for {leaves} results, or in another order")
    return tree


def _tree(data: Any, numbers: list[int]) -> Any:
    if type(data) is int:
        numbers.append(data)
        return Leaf(data)
    if isinstance(data, dict) and len(data) == 1:
        ((kind, parts),) = data.items()
        if kind == "value" and (parts is None or isinstance(parts, bool | int | float | str)):
            return parts
        if isinstance(parts, list) and kind in ("tuple", "list"):
            whole = [_tree(part, numbers) for part in parts]
            return tuple(whole) if kind == "tuple" else whole
        if isinstance(parts, list) and kind in ("dict", "OrderedDict"):
            pairs = [(_key(pair), _tree(pair[1], numbers)) for pair in parts]
            return dict(pairs) if kind == "dict" else OrderedDict(pairs)
        if isinstance(parts, list) and kind == "record":
            return Record(Named, tuple((_name(_key(pair)), _tree(pair[1], numbers)) for pair in parts))
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
