"""What a file must hold, declared once: shapes of plain values, which name every place that is not of them.

>>> shape = Record({"seed": Number(least=0, whole=True), "groups": Items(Text())})
>>> list(shape.problems({"seed": -1, "groups": ["conv1", 3]}, ""))
['seed is -1, not a whole number of at least 0', 'groups[1] is 3, not text']
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bayesprune.errors import BayespruneError

MOST_TOLD = 5
"""Problems of one file that are listed; how many more there are is said."""


class Shape(Protocol):
    """What a value can be of."""

    @property
    def name(self) -> str:
        """What such a value is called, as in "a whole number"."""

    def problems(self, value: Any, place: str) -> Iterator[str]:
        """Whatever is not of this shape, each with its place.

        Args:
            value: plain: numbers, text, lists and dicts.
            place: where it stands, as ``seeds[0].groups``; empty at the top.
        """


def check(
    value: Any, shape: Shape, path: str | Path, error: type[BayespruneError], remedy: str = "It was changed."
) -> None:
    """Make sure that a file holds what it should.

    Args:
        value: its content.
        shape: what it should be.
        path: of the file, for the message.
        error: class of the error to raise.
        remedy: what to do.

    Raises:
        error: something is not of its shape; the first five such places are named.
    """
    found = list(shape.problems(value, ""))
    if found:
        more = f"; and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
        raise error(f"{path}: {'; '.join(found[:MOST_TOLD])}{more}. {remedy}")


@dataclass(frozen=True)
class Number:
    """A finite number.

    Attributes:
        least: smallest that is taken.
        most: largest that is taken.
        whole: integers alone.
    """

    least: float = -math.inf
    most: float = math.inf
    whole: bool = False

    @property
    def name(self) -> str:
        """As "a whole number of 0 to 9"."""
        what = "a whole number" if self.whole else "a number"
        if math.isfinite(self.least) and math.isfinite(self.most):
            return f"{what} of {self.least:g} to {self.most:g}"
        return what + (f" of at least {self.least:g}" if math.isfinite(self.least) else "")

    def problems(self, value: Any, place: str) -> Iterator[str]:
        """No number, not finite, or out of range."""
        kinds = int if self.whole else int | float
        right = isinstance(value, kinds) and not isinstance(value, bool)
        if not (right and self.least <= value <= self.most and value - value == 0):
            yield _not(self, value, place)


@dataclass(frozen=True)
class Text:
    """A string.

    Attributes:
        of: the only ones that are taken; empty for any.
    """

    of: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As "'macs' or 'params'"."""
        return " or ".join(map(repr, self.of)) or "text"

    def problems(self, value: Any, place: str) -> Iterator[str]:
        """No string, or none of those."""
        if not isinstance(value, str) or (self.of and value not in self.of):
            yield _not(self, value, place)


@dataclass(frozen=True)
class Truth:
    """True or false."""

    name: str = "true or false"

    def problems(self, value: Any, place: str) -> Iterator[str]:
        """Neither."""
        if not isinstance(value, bool):
            yield _not(self, value, place)


@dataclass(frozen=True)
class Items:
    """A list.

    Attributes:
        of: shape of each item.
        least: how many there must be.
    """

    of: Shape
    least: int = 0

    @property
    def name(self) -> str:
        """As "a list of at least 1"."""
        return "a list" + (f" of at least {self.least}" if self.least else "")

    def problems(self, value: Any, place: str) -> Iterator[str]:
        """No list, too short, or an item of another shape."""
        if not isinstance(value, list) or len(value) < self.least:
            yield _not(self, value, place)
        else:
            for number, item in enumerate(value):
                yield from self.of.problems(item, f"{place}[{number}]")


@dataclass(frozen=True)
class Table:
    """An object of any keys.

    Attributes:
        of: shape of each value.
        name: what it is called.
    """

    of: Shape
    name: str = "an object"

    def problems(self, value: Any, place: str) -> Iterator[str]:
        """No object, or a value of another shape."""
        if not isinstance(value, dict):
            yield _not(self, value, place)
        else:
            for key, item in value.items():
                yield from self.of.problems(item, _below(place, key))


@dataclass(frozen=True)
class Record:
    """An object of known keys; others are left to whoever knows them.

    Attributes:
        fields: key → shape, all of which must be there.
        optional: key → shape, which may be missing.
        name: what it is called.
        closed: whether keys that are not known are problems too.
    """

    fields: Mapping[str, Shape]
    optional: Mapping[str, Shape] = field(default_factory=dict)
    name: str = "an object"
    closed: bool = False

    def problems(self, value: Any, place: str) -> Iterator[str]:
        """No object, a key that is missing, or a value of another shape."""
        if not isinstance(value, dict):
            yield _not(self, value, place)
            return
        for key, shape in {**self.fields, **self.optional}.items():
            if key in value:
                yield from shape.problems(value[key], _below(place, key))
            elif key in self.fields:
                yield f"{_below(place, key)} is missing"
        for key in value if self.closed else ():
            if key not in self.fields and key not in self.optional:
                yield f"{_below(place, key)} is unknown"


@dataclass(frozen=True)
class Either:
    """What is of one of several shapes; problems are those of the nearest.

    Attributes:
        shapes: in the order in which they are tried.
    """

    shapes: tuple[Shape, ...]

    @property
    def name(self) -> str:
        """As "a number or null"."""
        return " or ".join(shape.name for shape in self.shapes)

    def problems(self, value: Any, place: str) -> Iterator[str]:
        """Of none of the shapes."""
        found = [list(shape.problems(value, place)) for shape in self.shapes]
        if all(found):
            # of the right kind, and wrong inside: what is wrong there says more
            inside = [p for p in found if not p[0].startswith(f"{place or 'it'} is {_shown(value)}")]
            yield from inside[0] if inside else [_not(self, value, place)]


@dataclass(frozen=True)
class Nothing:
    """JSON's null."""

    name: str = "null"

    def problems(self, value: Any, place: str) -> Iterator[str]:
        """Anything at all."""
        if value is not None:
            yield _not(self, value, place)


@dataclass(frozen=True)
class Anything:
    """What is not looked at."""

    name: str = "anything"

    def problems(self, value: Any, place: str) -> Iterator[str]:
        """There are none."""
        yield from ()


def nullable(shape: Shape) -> Either:
    """A shape, or null."""
    return Either((shape, Nothing()))


def _not(shape: Shape, value: Any, place: str) -> str:
    return f"{place or 'it'} is {_shown(value)}, not {shape.name}"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return f"{value!r:.40}"


def _below(place: str, key: str) -> str:
    return f"{place}.{key:.40}" if place else f"{key:.40}"
