"""The posterior, looked at: its draws in ArviZ's form, what they say of the mask, and plots of a fit."""

from typing import TYPE_CHECKING

from bayesprune.posterior.arviz import read, write
from bayesprune.posterior.compare import compare
from bayesprune.posterior.comparison import Compared, Comparison
from bayesprune.posterior.corrected import CorrectedInclusion, corrected_inclusion
from bayesprune.posterior.diagnose import Diagnosis
from bayesprune.posterior.evidence import EvidenceTable
from bayesprune.posterior.integrate import Integrated, integrate_weights
from bayesprune.posterior.join import join
from bayesprune.posterior.loo import Loo, loo
from bayesprune.posterior.plots import plot_evidence, plot_gates, plot_inputs
from bayesprune.posterior.power_scaling import power_scaling
from bayesprune.posterior.sensitivity import PowerScaling, Sensitivity
from bayesprune.posterior.simulate import Ranks, simulate_ranks
from bayesprune.posterior.starts import Starts, compare_starts
from bayesprune.posterior.value import Posterior, to_arviz

if TYPE_CHECKING:  # when it runs, these are the packages, which can be called
    from bayesprune.posterior.diagnose import diagnose
    from bayesprune.posterior.evidence import evidence

__all__ = [
    "Compared",
    "Comparison",
    "CorrectedInclusion",
    "Diagnosis",
    "EvidenceTable",
    "Integrated",
    "Loo",
    "Posterior",
    "PowerScaling",
    "Ranks",
    "Sensitivity",
    "Starts",
    "compare",
    "compare_starts",
    "corrected_inclusion",
    "diagnose",
    "evidence",
    "integrate_weights",
    "join",
    "loo",
    "plot_evidence",
    "plot_gates",
    "plot_inputs",
    "power_scaling",
    "read",
    "simulate_ranks",
    "to_arviz",
    "write",
]
