"""Which of their attributes modules read while a network runs: no other can be a size that it runs by."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

Read = dict[nn.Module, set[str]]
"""Module → names of the attributes that somebody has read; of others nothing is known."""

_OURS = ("torch.", "bayesprune.")  # these look parameters and hooks up in a module's dictionary


@contextmanager
def reading(modules: Iterable[nn.Module]) -> Iterator[Read]:
    """See what is read of modules inside.

    A module whose whole dictionary is read, or whose class cannot be put aside for a while, is not in what
    comes out.
    """
    read, classes = Read(), dict[nn.Module, type]()
    try:
        for module in modules:
            kind, names = type(module), set[str]()
            try:
                module.__class__ = _noting(kind, names)
            except TypeError:  # a layout, or a way of making classes, of its own
                continue
            classes[module], read[module] = kind, names
        yield read
    finally:
        for module, kind in classes.items():
            module.__class__ = kind
        for module in [module for module, names in read.items() if "__dict__" in names]:
            del read[module]


def _noting(kind: type, names: set[str]) -> type:
    """A class that does what another one does, and notes what is read of its instances."""

    def __getattribute__(self: Any, name: str) -> Any:
        if name != "__dict__" or not sys._getframe(1).f_globals["__name__"].startswith(_OURS):
            names.add(name)
        return kind.__getattribute__(self, name)  # type: ignore[call-arg]

    return type(kind.__name__, (kind,), {"__getattribute__": __getattribute__, "__module__": kind.__module__})
