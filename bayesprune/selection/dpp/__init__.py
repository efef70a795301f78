"""k-DPP selection of nodes and edges: draws, kernels, the rules."""

from bayesprune.selection.dpp.edges import DPPEdges
from bayesprune.selection.dpp.kernel import gaussian_kernel
from bayesprune.selection.dpp.rule import DPP
from bayesprune.selection.dpp.sample import KDPP, sample_kdpp

__all__ = ["DPP", "KDPP", "DPPEdges", "gaussian_kernel", "sample_kdpp"]
