"""Formulas as MathML, by docutils' own converter: nothing to download, for the build or for the reader."""

import html
import re
from xml.etree import ElementTree

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

LONG = 45  # characters of a formula within a line that is wider than a telephone
ACCENTS = "˙¨ˉ¯~˜ˆ^ˇ´`→⃗‾"
ENTITY = re.compile(r"&(?!lt;|gt;|amp;|#)\w+;")  # XML knows no names but these three
MATHML = "http://www.w3.org/1998/Math/MathML"
ElementTree.register_namespace("", MATHML)

SAME = {
    r"\\tag\{([^}]*)\}": r"\\qquad (\1)",
    r"\\dots(?![a-zA-Z])": r"\\ldots",
    r"\\(big|Big|bigg|Bigg)(?![a-zA-Z])": r"\\\1l",
    r"\\textstyle(?![a-zA-Z])": "",
    r"\\mathrel\{([^}]*)\}": r"\1",
    r"\\(d|t)?frac(\d)(\d)": r"\\\1frac{\2}{\3}",
    r"(\\[dt]?frac\{[^{}]*\})(\d)": r"\1{\2}",
    r"\\iff(?![a-zA-Z])": r"\\;\\Leftrightarrow\\;",
    r"\\implies(?![a-zA-Z])": r"\\;\\Rightarrow\\;",
    "½": r"\\frac{1}{2}",
    r"(?<=[\w)}\]])\s*\\log(?![a-zA-Z])": r"\\,\\log",
    r"\\log\s+(?=[\w\\])(?!\\(?:left|[bB]ig|frac|\W))": r"\\log\\,",
    r"\\log(?=\\(?!left|[bB]ig|frac)[a-zA-Z])": r"\\log\\,",
}
"""What docutils does not know, in words that it does; and the thin spaces around a logarithm."""


def convert(node: nodes.math | nodes.math_block, block: bool) -> str:
    """One formula; a warning, which fails a strict build, where it cannot be read."""
    tex = node.astext()
    for pattern, words in SAME.items():
        tex = re.sub(pattern, words, tex)
    try:
        shown = with_accents_apart(tex2mathml(tex, as_block=block))
    except (MathError, ValueError, IndexError, AttributeError, ElementTree.ParseError) as problem:
        logger.warning("formula cannot be shown: %s in %s", problem, node.astext(), location=node)
        return f"<code>{html.escape(node.astext())}</code>"
    long = not block and len(tex) > LONG
    return f'<span class="math-long">{shown}</span>' if long else shown


def with_accents_apart(mathml: str) -> str:
    """Accents above their letters, with indices beside them: docutils puts an index underneath.

    Without the mark ``accent`` a dot stays clear of its letter also where no font for formulas is installed.

    Args:
        mathml: of one formula.
    """
    tree = ElementTree.fromstring(ENTITY.sub(lambda found: html.unescape(found[0]), mathml))
    for node in tree.iter(f"{{{MATHML}}}munderover"):
        letter, index, accent = node
        if accent.tag == f"{{{MATHML}}}mo" and accent.text in ACCENTS:
            node.tag = f"{{{MATHML}}}msub"
            node[:] = [ElementTree.Element(f"{{{MATHML}}}mover"), index]
            node[0].extend([letter, accent])
    for node in tree.iter(f"{{{MATHML}}}mover"):
        node.attrib.pop("accent", None)
    return ElementTree.tostring(tree, encoding="unicode")


def inline(self: HTML5Translator, node: nodes.math) -> None:
    """A formula within a line."""
    self.body.append(convert(node, block=False))
    raise nodes.SkipNode


def display(self: HTML5Translator, node: nodes.math_block) -> None:
    """A formula on a line of its own, which scrolls by itself where it is wider than the page."""
    self.body.append(f'<div class="math" role="math" tabindex="0">{convert(node, block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer."""
    if not hasattr(app, "add_html_math_renderer"):
        raise ExtensionError("this Sphinx has no math renderers")
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
