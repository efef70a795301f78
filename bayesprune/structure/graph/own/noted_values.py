"""Numbers of modules that may be sizes, and what they could be after a cut."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from torch import nn

from bayesprune.structure.layers import SIZES

MOST_VALUES = 6
"""Values that are tried for one attribute at one place."""

LONGEST = 16
"""Entries of a list of sizes, at most."""

Change = tuple[int, int]
"""A size before the cut and after it."""

Entries = tuple[int, ...]
"""A size, or several, as they are tried."""

NO_SIZES = frozenset(vars(nn.Module()))
"""Attributes of every module."""

SIZED = (
    nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm,
    nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.RNNBase, nn.RNNCellBase,
)  # fmt: skip
"""Layers whose sizes follow their parameters already."""


def sizes_noted_by(module: nn.Module) -> list[str]:
    """Attributes of a module that may be sizes: whole numbers, and lists of them."""
    names = [name for name, value in vars(module).items() if name not in NO_SIZES and _is_size(value)]
    return [name for name in names if not (isinstance(module, SIZED) and name in SIZES)]


def _is_size(value: Any) -> bool:
    if type(value) in (list, tuple):
        return 0 < len(value) <= LONGEST and all(map(_is_number, value))
    return _is_number(value)


def _is_number(value: Any) -> bool:
    return type(value) is int and value > 0


def entries_of(value: Any) -> Entries:
    """A size as a tuple, of one number or several."""
    return (value,) if type(value) is int else tuple(value)


def scaled_by(entries: Entries, change: Change) -> Entries | None:
    """Sizes in the proportion of a change; None where that gives no whole numbers."""
    before, after = change
    if any(entry * after % before for entry in entries):
        return None
    return tuple(entry * after // before for entry in entries)


def values_after(entries: Entries, near: list[Change], everywhere: list[Change]) -> Iterator[Entries]:
    """What noted sizes could be after some changes: the new size, or as many times less; of lists, each."""
    yield tuple(next((after for before, after in near if before == entry), entry) for entry in entries)
    for change in near:
        if change[0] in entries:
            yield _replaced(entries, change)
    for change in near:
        scaled = scaled_by(entries, change)
        if scaled is not None:
            yield scaled
    if len(entries) > 1:
        choices = [dict.fromkeys([entry, *(n for o, n in near if o == entry)]) for entry in entries]
        yield from itertools.islice(itertools.product(*choices), MOST_VALUES)
    for change in everywhere:
        if change[0] in entries:
            yield _replaced(entries, change)


def _replaced(entries: Entries, change: Change) -> Entries:
    return tuple(change[1] if entry == change[0] else entry for entry in entries)
