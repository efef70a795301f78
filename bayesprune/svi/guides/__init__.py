"""Guides beside mean-field: richer posteriors for small models, as ordinary Pyro guides."""

from bayesprune.svi.guides.autoregressive import AutoregressiveGates
from bayesprune.svi.guides.layer_rows import LayerRows
from bayesprune.svi.guides.leave_one_out import LeaveOneOutELBO
from bayesprune.svi.guides.pseudo_rows import PseudoRows
from bayesprune.svi.guides.structured import StructuredGuide

__all__ = [
    "AutoregressiveGates",
    "LayerRows",
    "LeaveOneOutELBO",
    "PseudoRows",
    "StructuredGuide",
]
