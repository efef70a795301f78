"""The posterior, looked at: plots of what a fit did to its gates."""

from bayesprune.posterior.plots import plot_gates, plot_inputs

__all__ = ["plot_gates", "plot_inputs"]
