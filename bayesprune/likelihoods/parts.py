"""Which part of what a network returns a likelihood reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from bayesprune.errors import LikelihoodError
from bayesprune.rows.nested import Leaf, Record, taken_apart

Part = str | int | None
"""A name, a number, or None for the one tensor that there is."""


def part_of(outputs: Any, part: Part, who: str) -> Any:
    """One tensor of what a network returns.

    Args:
        outputs: a tensor, or tuples, dicts, ``ModelOutput``s or dataclasses of them; or the tree of such.
        part: its name, as ``"logits"``; its number, those that are None left out of a dict; or None, where
            there is one tensor.
        who: the likelihood, for messages.

    Returns:
        The tensor, or the leaf.

    Raises:
        LikelihoodError: there is no such part, or none is named and there are several.

    Example:
        >>> part_of({"loss": None, "logits": Leaf(0)}, "logits", "Categorical")
        Leaf(number=0)
    """
    if isinstance(outputs, Tensor) and part is not None and not isinstance(part, int):
        return outputs  # it is that part already
    if isinstance(outputs, Tensor | Leaf) and part in (None, 0):
        return outputs
    found = _all(outputs) if part is None else _named(outputs, part)
    if isinstance(found, Tensor | Leaf):
        return found
    names = _names(outputs)
    asked = "reads one tensor" if part is None else f"reads output={part!r}"
    remedy = f"output={names[0]!r}" if names else "output=, and let forward return it"
    raise LikelihoodError(
        f"{who}: it {asked}, and the network returns {_told(outputs, names)}: say which part of it is "
        f"read, {remedy}."
    )


def _all(outputs: Any) -> Any:
    leaves = taken_apart(outputs)[0] if not _is_tree(outputs) else _leaves(outputs)
    return leaves[0] if len(leaves) == 1 else None


def _named(outputs: Any, part: str | int) -> Any:
    entries = dict(outputs.entries) if isinstance(outputs, Record) else outputs
    if isinstance(part, str):
        return entries.get(part) if isinstance(entries, Mapping) else getattr(entries, part, None)
    if isinstance(entries, Mapping):
        entries = [value for value in entries.values() if value is not None]
    return (
        entries[part] if isinstance(entries, tuple | list) and -len(entries) <= part < len(entries) else None
    )


def _is_tree(outputs: Any) -> bool:
    return bool(_leaves(outputs))


def _leaves(tree: Any) -> list[Leaf]:
    if isinstance(tree, Leaf):
        return [tree]
    if isinstance(tree, Record):
        tree = dict(tree.entries)
    parts = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, tuple | list) else ()
    return [leaf for part in parts for leaf in _leaves(part)]


def _names(outputs: Any) -> list[str | int]:
    """What the parts are called by, tensors alone."""
    if isinstance(outputs, Tensor | Leaf):
        return [0]
    entries = dict(outputs.entries) if isinstance(outputs, Record) else outputs
    if not isinstance(entries, Mapping | tuple | list):
        entries = getattr(outputs, "__dict__", {})
    pairs = entries.items() if isinstance(entries, Mapping) else enumerate(entries)
    return [name for name, value in pairs if isinstance(value, Tensor | Leaf)]


def _told(outputs: Any, names: list[str | int]) -> str:
    kind = outputs.kind.__name__ if isinstance(outputs, Record) else type(outputs).__name__
    if isinstance(outputs, Tensor | Leaf):
        return "a tensor"
    return f"a {kind} with {', '.join(map(repr, names)) or 'no tensor'}"
