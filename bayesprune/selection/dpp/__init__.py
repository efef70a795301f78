"""k-DPP node selection: draws, kernels, the rule."""

from bayesprune.selection.dpp.kernel import gaussian_kernel
from bayesprune.selection.dpp.rule import DPP
from bayesprune.selection.dpp.sample import KDPP, sample_kdpp

__all__ = ["DPP", "KDPP", "gaussian_kernel", "sample_kdpp"]
