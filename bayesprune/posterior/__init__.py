"""The posterior, looked at: its draws in ArviZ's form, and plots of what a fit did to its gates."""

from bayesprune.posterior.arviz import to_arviz
from bayesprune.posterior.plots import plot_gates, plot_inputs

__all__ = ["plot_gates", "plot_inputs", "to_arviz"]
