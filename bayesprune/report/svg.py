"""A Matplotlib figure as SVG inside a page: text stays text, and colours follow the page, light or dark."""

from __future__ import annotations

import io
import re
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from bayesprune.posterior.plots.colours import FITS, REFERENCE

THEMED = {"#000000": "currentColor", REFERENCE: "var(--quiet)"} | {
    colour: f"var(--fit-{number})" for number, colour in enumerate(FITS)
}
"""Colours of the plots → what the page calls them."""
SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "bayesprune", "savefig.dpi": 144}
DECIMALS = re.compile(r"(\d+\.\d{2})\d+")
DROPPED = ("metadata", "style")


def inline_svg(figure: Figure, number: int, label: str) -> str:
    """Draw a figure as an ``<svg>`` element that refers to nothing outside.

    Args:
        figure: to draw; its background is left out.
        number: of the figure on the page, which makes its ids its own.
        label: what it shows, for who cannot see it.

    Returns:
        The element's text. It scales with the width that it is given.
    """
    text = io.StringIO()
    with matplotlib.rc_context(SETTINGS):  # the settings in force are put back
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(text.getvalue())
    _clean(root, f"p{number}-")
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _clean(element: ElementTree.Element, prefix: str) -> None:
    """Names without namespaces, ids of this figure alone, colours of the page."""
    element.tag = _local(element.tag)
    element.attrib = {_local(name): _value(_local(name), v, prefix) for name, v in element.attrib.items()}
    for child in list(element):
        if _local(child.tag) in DROPPED:
            element.remove(child)
        else:
            _clean(child, prefix)


def _value(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return prefix + value
    if name == "href" and value.startswith("#"):
        return f"#{prefix}{value[1:]}"
    if name == "d":
        return DECIMALS.sub(r"\1", value)
    if name in ("style", "fill", "stroke"):
        return re.sub(r"#[0-9a-f]{6}", lambda found: THEMED.get(found[0], found[0]), value)
    return value.replace("url(#", f"url(#{prefix}")


def _local(name: str) -> str:
    return name.rsplit("}", 1)[-1]
