"""Bars in docstrings: ``|x|`` is an absolute value there, and would be a substitution in reStructuredText."""

import re
from typing import Any

from sphinx.application import Sphinx

LITERAL = re.compile(r"(``.*?``|`[^`]*`)")
BAR = re.compile(r"(?<!\\)\|")


def escape(lines: list[str]) -> list[str]:
    """The same lines with every bar escaped that is neither in a literal, a formula's block nor an example.

    Args:
        lines: of a docstring.
    """
    found, inside = [], None  # indentation of a formula's block
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip() and inside is not None and indent <= inside:
            inside = None
        if line.lstrip().startswith(".. math::"):
            inside = indent
        plain = inside is None and not line.lstrip().startswith((">>>", "..."))
        parts = LITERAL.split(line)
        found.append("".join(BAR.sub(r"\\|", p) if plain and not n % 2 else p for n, p in enumerate(parts)))
    return found


def on_docstring(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Called by autodoc for every docstring; the lines are changed in place."""
    lines[:] = escape(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Before napoleon sees the lines."""
    app.connect("autodoc-process-docstring", on_docstring, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
