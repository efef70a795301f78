"""Units and groups: what can be removed, what it costs, and how it is cut."""

from bayesprune.structure.cost import Cost, count
from bayesprune.structure.expected import Costed, Expected, ExpectedCost
from bayesprune.structure.graph.rules.call import Call, Raw, rule
from bayesprune.structure.groups import Group, Slot
from bayesprune.structure.minimal import minimal_masks
from bayesprune.structure.plain.routed import routed_linear
from bayesprune.structure.plain_weights import plain_weights
from bayesprune.structure.taken import Pass, measure
from bayesprune.structure.terms import Term
from bayesprune.structure.weight_posterior import WeightPosterior

__all__ = [
    "Call",
    "Cost",
    "Costed",
    "Expected",
    "ExpectedCost",
    "Group",
    "Pass",
    "Raw",
    "Slot",
    "Term",
    "WeightPosterior",
    "count",
    "measure",
    "minimal_masks",
    "plain_weights",
    "routed_linear",
    "rule",
]
