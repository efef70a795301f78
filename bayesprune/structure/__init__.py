"""Units and groups: what can be removed, what it costs, and how it is cut."""

from bayesprune.structure.chain import Chain
from bayesprune.structure.cost import Cost, count
from bayesprune.structure.expected import Costed, Expected, ExpectedCost
from bayesprune.structure.find import find_chain
from bayesprune.structure.graph.rules.call import Call, Raw, rule
from bayesprune.structure.groups import Group, Slot
from bayesprune.structure.layers import Select
from bayesprune.structure.minimal import minimal_masks
from bayesprune.structure.surgery import cut_
from bayesprune.structure.terms import Term

__all__ = [
    "Call",
    "Chain",
    "Cost",
    "Costed",
    "Expected",
    "ExpectedCost",
    "Group",
    "Raw",
    "Select",
    "Slot",
    "Term",
    "count",
    "cut_",
    "find_chain",
    "minimal_masks",
    "rule",
]
