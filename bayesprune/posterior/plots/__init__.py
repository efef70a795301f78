"""Plots of a posterior, one a file: matplotlib functions that draw into given axes, or into new ones.

Each takes what ``fit`` gave back (one result or several), a ``Posterior``, or draws in ArviZ's form,
whichever has what it shows. ``bp.plots`` is this room.
"""

from bayesprune.posterior.plots.cost import plot_cost
from bayesprune.posterior.plots.coverage import plot_coverage
from bayesprune.posterior.plots.draws import plot_draws
from bayesprune.posterior.plots.elbo import plot_elbo
from bayesprune.posterior.plots.evidence import plot_evidence
from bayesprune.posterior.plots.figures import save_figure
from bayesprune.posterior.plots.gates import plot_gates
from bayesprune.posterior.plots.history import describe_history
from bayesprune.posterior.plots.inclusion import plot_inclusion
from bayesprune.posterior.plots.inputs import plot_inputs
from bayesprune.posterior.plots.kept import plot_kept
from bayesprune.posterior.plots.pareto import plot_pareto
from bayesprune.posterior.plots.ranks import plot_ranks
from bayesprune.posterior.plots.reliability import plot_reliability
from bayesprune.posterior.plots.seeds import plot_seeds

__all__ = [
    "describe_history",
    "plot_cost",
    "plot_coverage",
    "plot_draws",
    "plot_elbo",
    "plot_evidence",
    "plot_gates",
    "plot_inclusion",
    "plot_inputs",
    "plot_kept",
    "plot_pareto",
    "plot_ranks",
    "plot_reliability",
    "plot_seeds",
    "save_figure",
]
