"""bayesprune: prune networks while they learn, by inference."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bayesprune import data, priors, selection, structure, svi
from bayesprune.certify import Certificate, certify
from bayesprune.errors import BayespruneError
from bayesprune.export import export, load, save
from bayesprune.gated import GatedModel, gate
from bayesprune.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood, Own, Poisson
from bayesprune.priors import Budget, Price
from bayesprune.structure import Cost, Group, count
from bayesprune.structure.graph import analyse
from bayesprune.svi import Epoch, FitResult, GateSteps, Quality, Recipe, Shrink, evaluate, fit, prune

if TYPE_CHECKING:
    from bayesprune import theory
    from bayesprune.posterior import Diagnosis, EvidenceTable, Posterior, diagnose, evidence, plots

__version__ = "0.1.0"

__all__ = [
    "BayespruneError",
    "Bernoulli",
    "Budget",
    "Categorical",
    "Certificate",
    "Cost",
    "Diagnosis",
    "Epoch",
    "EvidenceTable",
    "FitResult",
    "GateSteps",
    "GatedModel",
    "Gaussian",
    "Group",
    "Likelihood",
    "Own",
    "Poisson",
    "Posterior",
    "Price",
    "Quality",
    "Recipe",
    "Shrink",
    "analyse",
    "certify",
    "count",
    "data",
    "diagnose",
    "evaluate",
    "evidence",
    "export",
    "fit",
    "gate",
    "load",
    "plots",
    "priors",
    "prune",
    "save",
    "selection",
    "structure",
    "svi",
    "theory",
]

_LATE = (
    "Diagnosis",
    "EvidenceTable",
    "Posterior",
    "diagnose",
    "evidence",
    "plots",
)  # they need ArviZ, which takes seconds to import


def __getattr__(name: str) -> Any:
    """Names of the room ``posterior``, and the room ``theory``, imported when they are first asked for."""
    if name in _LATE:
        from bayesprune import posterior

        return getattr(posterior, name)
    if name == "theory":
        return import_module("bayesprune.theory")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
