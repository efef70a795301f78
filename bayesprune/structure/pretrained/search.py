"""Which values of a config's fields make a class build a network of given shapes."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from bayesprune.structure.pretrained.config import Path, Shapes, changed, fields, made, shapes

LIKELY = (
    "size", "dim", "head", "layer", "block", "depth", "width", "d_model", "d_ff", "d_kv", "hidden", "inner",
)  # fmt: skip
"""Parts of names of fields that are tried first, and tried though no shape hangs on them alone."""

NEVER = ("vocab", "_id", "num_labels", "max_position", "max_source", "max_target", "position_embeddings")
"""Parts of names of fields that no unit stands for."""

PATIENCE = 4
"""For how many networks per change nothing comes nearer, until the search ends."""


@dataclass(frozen=True)
class Sizes:
    """What has become of a network's sizes.

    Attributes:
        units: (size, units left) of groups that have lost some.
        layers: (layers of a list, those that are left) of lists that have lost some.
    """

    units: frozenset[tuple[int, int]]
    layers: tuple[tuple[int, tuple[int, ...]], ...] = ()


@dataclass(frozen=True)
class Try:
    """Changes of a config, and how far from the shapes that are sought they end.

    Attributes:
        changes: field → value.
        shapes: that they make; those of fewer changes where none can be made of them.
        wrong: number of dimensions that are of another size, or are not there.
        problem: what the class says to them.
    """

    changes: dict[Path, Any]
    shapes: Shapes = field(repr=False)
    wrong: float
    problem: str = ""


def candidates(config: Any, sizes: Sizes, wanted: Shapes) -> list[tuple[Path, Any, bool]]:
    """Fields with values that they may have now, the likely ones first, and whether they are.

    A field that is m times the size of a group may be m times what is left of it: heads by themselves, by
    their width, or by how many of them share keys and values. One without a value, which hangs on others
    then, may be any size that there is.
    """
    counts = {(number, len(kept)) for number, kept in sizes.layers} | sizes.units
    found: dict[tuple[Path, str], tuple[bool, bool, Path, Any]] = {}
    for path, value in fields(config):
        name = str(path[-1] if isinstance(path[-1], str) else path[-2])
        likely, values = any(part in name for part in LIKELY), list[Any]()
        if any(part in name for part in NEVER):
            continue
        if isinstance(value, list):
            likely = True
            values = [[value[i] for i in kept] for number, kept in sizes.layers if number == len(value)]
        elif value is None:
            values = sorted({size for shape in wanted.values() for size in shape}) if likely else []
        elif value:
            values = sorted({value // size * kept for size, kept in counts if value % size == 0})
        exact = type(value) is int and value in {size for size, _ in counts}
        for new in values:
            found.setdefault((path, repr(new)), (not likely, not exact, path, new))
    return [(path, new, not other) for other, _, path, new in sorted(found.values(), key=lambda c: c[:2])]


class Search:
    """Builds a class from changed configs until one has the shapes that are sought.

    Args:
        kind: the class.
        config: of the network as it was.
        wanted: the shapes that are sought.
        sizes: what may have changed.

    Attributes:
        dense: what the class makes of the config as it was.
        best: what came nearest, so far.
    """

    def __init__(self, kind: type[nn.Module], config: Any, wanted: Shapes, sizes: Sizes) -> None:
        self.kind, self.config, self.wanted = kind, config, wanted
        self.best = self.dense = self.tried({}, {})
        self.candidates = [(path, value) for path, value, likely in candidates(config, sizes, wanted)
                           if self._helps({path: value}, likely)]  # fmt: skip

    def found(self) -> Iterator[Try]:
        """Changes that make these shapes, the fewest first: the nearest ones are changed further.

        What no shape hangs on, as a number of heads that only divides a width, may have to change all the
        same; so this goes on where it is asked to.
        """
        number, last, built = itertools.count(), self.dense.wrong, 0
        queue = [(last, 0, next(number), self.dense)]
        known = {repr({})}
        while queue and built <= PATIENCE * max(len(self.candidates), 4):
            _, _, _, near = heapq.heappop(queue)
            if near.wrong == 0:
                yield near
            for path, value in self.candidates:
                changes = dict(sorted({**near.changes, path: value}.items(), key=str))
                if path in near.changes or repr(changes) in known:
                    continue
                known.add(repr(changes))
                then, built = self.tried(changes, near.shapes), built + 1
                if then.wrong < last:
                    last, built = then.wrong, 0
                    self.best = then if not then.problem else self.best
                away = then.wrong + 0.5 * (then.wrong >= near.wrong)
                heapq.heappush(queue, (away, len(changes), next(number), then))

    def tried(self, changes: Mapping[Path, Any], before: Shapes) -> Try:
        """The network that the class makes of changes."""
        try:
            there = shapes(made(self.kind, changed(self.config, changes)))
        except Exception as problem:  # whatever a class says to sizes that do not fit each other
            return Try(dict(changes), before, self._wrong(before) + 0.25, str(problem).partition("\n")[0])
        return Try(dict(changes), there, self._wrong(there))

    def _helps(self, changes: Mapping[Path, Any], likely: bool) -> bool:
        """Whether a change alone brings a size to what is sought, or may do so with others: the class refuses
        it by itself, or no shape hangs on it and it is a likely one.
        """
        then = self.tried(changes, self.dense.shapes)
        before, after = (_dims(made_) for made_ in (self.dense.shapes, then.shapes))
        if before == after:  # as where the class refuses it by itself
            return likely
        wanted = _dims(self.wanted)
        return any(before.get(place) != size == wanted.get(place) for place, size in after.items()) or any(
            place not in wanted and place not in after for place in before
        )

    def _wrong(self, there: Shapes) -> int:
        mine, wanted = _dims(there), _dims(self.wanted)
        return sum(mine.get(place) != wanted.get(place) for place in mine.keys() | wanted.keys())


def _dims(there: Shapes) -> dict[tuple[str, int], int]:
    """(tensor, dimension) → size; a tensor without dimensions has one number."""
    return {(name, dim): size for name, shape in there.items() for dim, size in enumerate(shape or (1,))}


def governed(search: Search, paths: Sequence[Path]) -> dict[Path, set[tuple[str, int]]]:
    """Field → the (tensor, dimension) that hang on it, by the network that twice its value makes.

    Args:
        search: knows the class and its config.
        paths: of fields that are whole numbers.
    """
    values, dense = dict(fields(search.config)), search.dense.shapes
    found: dict[Path, set[tuple[str, int]]] = {}
    for path in paths:
        if type(values.get(path)) is not int:
            continue
        there = search.tried({path: 2 * values[path]}, dense).shapes
        found[path] = {
            (name, dim)
            for name, shape in dense.items()
            for dim, (a, b) in enumerate(zip(shape, there.get(name, shape), strict=False))
            if a != b
        }
    return found
