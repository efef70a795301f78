"""The API pages: one for each room of the library, written from what the rooms say is public.

A room is a package with ``__all__``. A name is described once: at the top level if ``bayesprune`` has it,
else in the outermost room. New rooms and names appear by themselves.
"""

import importlib
import inspect
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

import bayesprune

FOLDER = "api/rooms"
NOT_ROOMS = ("bayesprune.cli",)  # its face is the command line
MODULES = ("bayesprune.errors", "bayesprune.posterior.plots")  # public without being packages


def rooms() -> list[ModuleType]:
    """The library, then its rooms, outer ones first."""
    names = [m.name for m in pkgutil.walk_packages(bayesprune.__path__, "bayesprune.") if m.ispkg]
    names += [name for name in MODULES if name not in names]
    names = [name for name in names if not name.startswith(NOT_ROOMS)]
    found = [importlib.import_module(n) for n in sorted(names, key=lambda n: (n.count("."), n))]
    return [bayesprune, *(room for room in found if public(room))]


def public(room: ModuleType) -> list[str]:
    """Names that a room offers: its ``__all__``, or what a plain module defines without an underscore."""
    if hasattr(room, "__all__"):
        return [name for name in room.__all__ if not inspect.ismodule(getattr(room, name))]
    if hasattr(room, "__path__"):
        return []
    return [n for n, v in vars(room).items() if getattr(v, "__module__", "") == room.__name__ and n[0] != "_"]


def pages() -> dict[str, str]:
    """Room → its page; what an earlier one has described is left out."""
    described: set[int] = set()
    texts = {}
    for room in rooms():
        own = [name for name in public(room) if id(getattr(room, name)) not in described]
        own = list({id(getattr(room, name)): name for name in reversed(own)}.values())[::-1]
        described |= {id(getattr(room, name)) for name in own}
        if own:
            texts[room.__name__] = page(room, own)
    return texts


def page(room: ModuleType, names: list[str]) -> str:
    """A room's page: its docstring and its names, classes with their members."""
    title = room.__name__.removeprefix("bayesprune.")
    head = f"{title}\n{'=' * len(title)}\n\n.. automodule:: {room.__name__}\n   :no-members:\n"
    return head + "".join(f"\n{entry(room, name)}\n" for name in names)


def entry(room: ModuleType, name: str) -> str:
    """The directive for one name."""
    value, path = getattr(room, name), f"{room.__name__}.{name}"
    if inspect.isclass(value):
        kind = "autoexception" if issubclass(value, Exception) else "autoclass"
        bases = "" if value.__bases__ == (object,) else "\n   :show-inheritance:"
        return f".. {kind}:: {path}\n   :members:{bases}"
    if inspect.isroutine(value):
        return f".. autofunction:: {path}"
    place = home(room, name)
    return f".. autodata:: {place}.{name}\n   :no-value:" if place else f".. py:data:: {path}"


def home(room: ModuleType, name: str) -> str:
    """The module that assigns a name and describes it, if one does: a value does not know its own."""
    for module in [m for n, m in sys.modules.items() if f"{n}.".startswith(f"{room.__name__}.")]:
        same = vars(module).get(name) is getattr(room, name)
        if same and ("", name) in ModuleAnalyzer.for_module(module.__name__).find_attr_docs():
            return module.__name__
    return ""


def write(app: Sphinx) -> None:
    """Write pages that have changed, and take away those of rooms that are gone."""
    folder = Path(app.srcdir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    texts = {f"{name}.rst": text for name, text in pages().items()}
    for path in folder.glob("*.rst"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Pages are written before Sphinx looks for sources."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
