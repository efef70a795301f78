"""Docstrings are plain text: what reStructuredText and napoleon would read into bars and colons is held back.

``|x|`` is an absolute value, and would be a substitution. ``(units,), nats: gain − price`` on an attribute is
a sentence, and would be a type with its description.
"""

import re
from typing import Any

from docutils import nodes
from docutils.parsers.rst.roles import register_generic_role
from sphinx.application import Sphinx

LITERAL = re.compile(r"(``.*?``|`[^`]*`)")
BAR = re.compile(r"(?<!\\)\|")
COLON = re.compile(r":(?=\s|$)")
AS_TEXT = r"\\ :as-text:`:`"
"""A colon that napoleon takes for part of a role; the role shows it as it is."""


def escape_bars(lines: list[str]) -> list[str]:
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


def escape_colon(lines: list[str]) -> list[str]:
    """The same lines with colons of the first one marked as text, those in literals left alone.

    Args:
        lines: of an attribute's docstring.
    """
    parts = LITERAL.split(lines[0]) if lines else []
    first = "".join(COLON.sub(AS_TEXT, p) if not n % 2 else p for n, p in enumerate(parts))
    return [first, *lines[1:]] if lines else []


def on_docstring(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Called by autodoc for every docstring; the lines are changed in place."""
    lines[:] = escape_bars(lines)
    if what in ("attribute", "data", "property"):
        lines[:] = escape_colon(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Before napoleon sees the lines."""
    register_generic_role("as-text", nodes.inline)
    app.connect("autodoc-process-docstring", on_docstring, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
