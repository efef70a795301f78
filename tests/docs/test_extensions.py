"""What the pages are built with: formulas as MathML, and one place for every public name."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="pages are built with the extra 'docs'")
nodes = pytest.importorskip("docutils.nodes")

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def extensions():
    sys.path.insert(0, str(DOCS / "_extensions"))
    import mathml
    import rooms

    yield mathml, rooms
    sys.path.remove(str(DOCS / "_extensions"))


FORMULAS = [
    r"\Big[ \frac12 \Big]",
    r"\textstyle\sum_i \theta_i",
    r"\theta\log\gamma - \log\tfrac{1}{2} + \log\left( x \right)",
    r"\begin{aligned} a &= b \\ &= c \end{aligned}",
    r"x_1, \dots, x_n \tag{3}",
    r"w \mathrel{-}= \eta g",
    r"E[D] \le ½ \iff \big[\tfrac{1+D}2\big] \implies \dfrac34",
]


@pytest.mark.parametrize("tex", FORMULAS)
@pytest.mark.parametrize("block", [False, True])
def test_formulas_become_mathml_without_a_warning(extensions, tex, block, monkeypatch):
    mathml, _ = extensions
    monkeypatch.setattr(mathml.logger, "warning", lambda *args, **kwargs: pytest.fail(str(args)))
    shown = mathml.convert(nodes.math(tex, tex), block)
    assert shown.removeprefix('<span class="math-long">').startswith("<math") and "\\" not in shown


def test_an_index_of_a_letter_with_an_accent_is_beside_it_and_of_a_sum_below(extensions):
    mathml, _ = extensions
    for tex in (r"\bar x_i", r"\dot R_{in}", r"\hat{k}_i^2", r"\tilde x_i", r"\ddot x_i"):
        shown = mathml.convert(nodes.math(tex, tex), block=True)
        assert "munderover" not in shown and shown.index("<mover") < shown.index("</mover>"), tex
        assert "<msub>" in shown
    tex = r"\sum_{i=1}^n \hat x"
    shown = mathml.convert(nodes.math_block(tex, tex), block=True)
    assert "<munderover" in shown and "<mover" in shown


def test_what_cannot_be_shown_is_a_warning_and_stays_legible(extensions, monkeypatch):
    mathml, _ = extensions
    said = []
    monkeypatch.setattr(mathml.logger, "warning", lambda text, *args, **kwargs: said.append(text % args))
    shown = mathml.convert(nodes.math("a < b", r"a < \nosuchcommand b"), False)
    assert len(said) == 1 and "nosuchcommand" in said[0]
    assert shown == r"<code>a &lt; \nosuchcommand b</code>"


def test_bars_of_docstrings_are_escaped_and_those_of_code_and_formulas_are_not(extensions):
    import plain_text

    lines = ["The largest |q − p|, as ``a | b`` in code.", "", ".. math:: p(z | y)", "          = |x|", ""]
    lines += ["    >>> 1 | 2", "q(w | z)"]
    expected = [*lines]
    expected[0] = r"The largest \|q − p\|, as ``a | b`` in code."
    expected[-1] = r"q(w \| z)"
    assert plain_text.escape_bars(lines) == expected


def test_first_colon_of_an_attribute_is_no_type(extensions):
    import plain_text

    lines = ["(units,), nats: gain, as ``a: b``.", "", "Args: none"]
    assert plain_text.escape_colon(lines) == [
        r"(units,), nats\ :as-text:`:` gain, as ``a: b``.", "", "Args: none"
    ]  # fmt: skip
    assert plain_text.escape_colon([]) == []


def test_every_public_name_has_one_place(extensions):
    _, rooms = extensions
    pages = rooms.pages()
    described = [line.split(":: ")[1] for text in pages.values() for line in text.splitlines()
                 if line.startswith(("..", "   ..")) and "automodule" not in line]  # fmt: skip
    assert len(described) == len(set(described))
    last = [name.rpartition(".")[2] for name in described]
    for room in rooms.rooms():
        for name in rooms.public(room):
            assert name in last, f"{room.__name__}.{name} is on no page"
    assert "bayesprune.gate" in described and "bayesprune.priors.LayerAdaptive" in described
    assert "bayesprune.svi.fit" not in described  # it is bayesprune.fit
