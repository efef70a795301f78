"""Names that are imported when they are first asked for, and rooms that can be called.

PyTorch, Pyro, SciPy and ArviZ take seconds to import, and ``bayesprune --help`` needs none of them. So the
top of the library is a table of names and places (PEP 562); a place is imported with the first of its names.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


def lazily(
    package: str, places: Mapping[str, str | None]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package whose names are imported when they are first asked for.

    Args:
        package: its ``__name__``.
        places: name → the module that has it, or None where the name is itself a module of the package.

    Returns:
        The two functions, to be bound to these names in the package.
    """

    def getattr_(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        place = places[name]
        if place is None:
            return import_module(f"{package}.{name}")  # which binds the name in the package
        value = getattr(import_module(place), name)
        setattr(sys.modules[package], name, value)
        return value

    def dir_() -> list[str]:
        return sorted({*vars(sys.modules[package]), *places})

    return getattr_, dir_


class CallableRoom(ModuleType):
    """A package that is called as the function it is named after.

    ``bp.certify(network, rows)`` calls the function, and ``bp.certify.verify`` is in the package. A function
    under the package's name would hide the package, until Python binds the name to the package again, as it
    does with the first import of any module in it; so it is the package that can be called.
    """

    _function: str

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        """What the function returns."""
        return vars(self)[self._function](*arguments, **settings)

    @property
    def __signature__(self) -> inspect.Signature:
        """That of the function, for ``help`` and editors."""
        return inspect.signature(vars(self)[self._function])


def callable_room(package: str, function: str) -> None:
    """Let a package be called as one of its functions; to be called at the end of its ``__init__``.

    Args:
        package: its ``__name__``.
        function: the name of the function in it.
    """
    room = sys.modules[package]
    room.__class__ = CallableRoom  # documented: "Customizing module attribute access" in Python's reference
    room._function = function  # type: ignore[attr-defined]
