"""Any network: units found by running it on labels, gated where they are read, and cut out."""

from bayesprune.structure.graph.analyse import Analysis, analyse, provable_structure
from bayesprune.structure.graph.network import GraphNetwork
from bayesprune.structure.graph.rules.labels import Frozen
from bayesprune.structure.graph.shipped import as_plain_graph
from bayesprune.structure.graph.surgery.adapt import CannotAdapt
from bayesprune.structure.plain import PlainGraph

__all__ = [
    "Analysis",
    "CannotAdapt",
    "Frozen",
    "GraphNetwork",
    "PlainGraph",
    "analyse",
    "as_plain_graph",
    "provable_structure",
]
