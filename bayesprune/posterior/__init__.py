"""The posterior, looked at: its draws in ArviZ's form, and plots of what a fit did to its gates."""

from bayesprune.posterior.arviz import read, write
from bayesprune.posterior.plots import plot_gates, plot_inputs
from bayesprune.posterior.value import Posterior, to_arviz

__all__ = ["Posterior", "plot_gates", "plot_inputs", "read", "to_arviz", "write"]
