"""bayesprune: prune networks while they learn, by inference."""

from bayesprune import data, priors, structure, svi
from bayesprune.errors import BayespruneError
from bayesprune.export import export, load, save
from bayesprune.gated import GatedModel, gate
from bayesprune.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood, Own, Poisson
from bayesprune.priors import Budget, Price
from bayesprune.structure import Cost, Group, count
from bayesprune.structure.graph import analyse
from bayesprune.svi import Epoch, FitResult, GateSteps, Quality, Recipe, Shrink, evaluate, fit, prune

__version__ = "0.1.0"

__all__ = [
    "BayespruneError",
    "Bernoulli",
    "Budget",
    "Categorical",
    "Cost",
    "Epoch",
    "FitResult",
    "GateSteps",
    "GatedModel",
    "Gaussian",
    "Group",
    "Likelihood",
    "Own",
    "Poisson",
    "Price",
    "Quality",
    "Recipe",
    "Shrink",
    "analyse",
    "count",
    "data",
    "evaluate",
    "export",
    "fit",
    "gate",
    "load",
    "priors",
    "prune",
    "save",
    "structure",
    "svi",
]
