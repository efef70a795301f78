"""The page on rules of one's own: its cells run, and what it says of them holds."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from bayesprune.structure.graph.rules.call import RULES
from bayesprune.structure.plain.operators import OWN, operator_of

PAGE = Path(__file__).parents[2] / "docs" / "own_rule.md"
CELL = re.compile(r"^```\{code-cell\} ipython3\n(?P<code>.*?)^```$", re.M | re.S)


def test_an_operation_of_ones_own_is_pruned_saved_and_loaded():
    names, said = {"__name__": "page"}, []
    try:
        for cell in CELL.finditer(PAGE.read_text(encoding="utf-8")):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(cell["code"], PAGE.name, "exec"), names)
            said.append(out.getvalue())
        without, with_rule, shown = said[0], said[1], said[-1]
        assert "ownrule.scale has no rule yet" in without and not re.search(r"^conv1 ", without, re.M)
        assert re.search(r"^conv1 +8 ", with_rule, re.M)
        assert shown.split() == ["Scaled", "(4,)", "tensor(True)", "True"]
    finally:
        RULES.pop("ownrule.scale", None)
        OWN.discard("ownrule::scale")
    with pytest.raises(ValueError, match="import the module that gives it a rule"):
        operator_of("ownrule::scale.default")
