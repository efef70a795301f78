"""Any network: units found by running it on labels, gated where they are read, and cut out."""

from bayesprune.structure.graph.labels import Frozen
from bayesprune.structure.graph.network import (
    Analysis,
    CannotAdapt,
    GraphNetwork,
    PlainGraph,
    analyse,
    provable_structure,
)

__all__ = ["Analysis", "CannotAdapt", "Frozen", "GraphNetwork", "PlainGraph", "analyse", "provable_structure"]
