"""bayesprune: prune networks while they learn, by inference.

Names are imported when they are first asked for. `certify` and `export` are packages that can be called:
``bp.certify(network, rows)`` certifies, and ``bp.certify.verify`` checks what came of it.
"""

from typing import TYPE_CHECKING

from bayesprune.lazy import lazily

if TYPE_CHECKING:
    from bayesprune import (
        baseline,
        data,
        errors,
        gated,
        likelihoods,
        posterior,
        prediction,
        priors,
        programs,
        report,
        selection,
        structure,
        svi,
        theory,
    )
    from bayesprune.certify import Certificate, Certified, certify
    from bayesprune.edges import prune_edges
    from bayesprune.errors import BayespruneError
    from bayesprune.export import export, load, save
    from bayesprune.gated import Autoregressive, GatedModel, gate
    from bayesprune.likelihoods import (
        Bernoulli,
        Categorical,
        Distilled,
        Gaussian,
        Likelihood,
        ModelLoss,
        Own,
        Poisson,
    )
    from bayesprune.posterior import Posterior, plots
    from bayesprune.posterior.diagnose import Diagnosis, diagnose
    from bayesprune.posterior.evidence import EvidenceTable, evidence
    from bayesprune.prediction import Prediction, predict, temperature
    from bayesprune.priors import BernoulliGates, Budget, Flattening, Price
    from bayesprune.selection.pareto import Front, pareto
    from bayesprune.structure import Cost, Group, Pass, count, measure
    from bayesprune.structure.graph import analyse
    from bayesprune.svi import (
        Callback,
        EarlyStopping,
        Epoch,
        FitResult,
        GateSteps,
        Moves,
        Quality,
        Recipe,
        Shrink,
        Training,
        evaluate,
        fit,
        prune,
    )

__version__ = "0.1.0"

_PLACES: dict[str, str | None] = {
    "Autoregressive": "bayesprune.gated",
    "BayespruneError": "bayesprune.errors",
    "Bernoulli": "bayesprune.likelihoods",
    "BernoulliGates": "bayesprune.priors",
    "Budget": "bayesprune.priors",
    "Callback": "bayesprune.svi",
    "Categorical": "bayesprune.likelihoods",
    "Certificate": "bayesprune.certify",
    "Certified": "bayesprune.certify",
    "Cost": "bayesprune.structure",
    "Diagnosis": "bayesprune.posterior.diagnose",
    "Distilled": "bayesprune.likelihoods",
    "EarlyStopping": "bayesprune.svi",
    "Epoch": "bayesprune.svi",
    "EvidenceTable": "bayesprune.posterior.evidence",
    "FitResult": "bayesprune.svi",
    "Flattening": "bayesprune.priors",
    "Front": "bayesprune.selection.pareto",
    "GateSteps": "bayesprune.svi",
    "GatedModel": "bayesprune.gated",
    "Gaussian": "bayesprune.likelihoods",
    "Group": "bayesprune.structure",
    "Likelihood": "bayesprune.likelihoods",
    "ModelLoss": "bayesprune.likelihoods",
    "Moves": "bayesprune.svi",
    "Own": "bayesprune.likelihoods",
    "Pass": "bayesprune.structure",
    "Poisson": "bayesprune.likelihoods",
    "Posterior": "bayesprune.posterior",
    "Prediction": "bayesprune.prediction",
    "Price": "bayesprune.priors",
    "Quality": "bayesprune.svi",
    "Recipe": "bayesprune.svi",
    "Shrink": "bayesprune.svi",
    "Training": "bayesprune.svi",
    "analyse": "bayesprune.structure.graph",
    "baseline": None,
    "certify": None,
    "count": "bayesprune.structure",
    "data": None,
    "diagnose": "bayesprune.posterior.diagnose",
    "errors": None,
    "evaluate": "bayesprune.svi",
    "evidence": "bayesprune.posterior.evidence",
    "export": None,
    "fit": "bayesprune.svi",
    "gate": "bayesprune.gated",
    "gated": None,
    "likelihoods": None,
    "load": "bayesprune.export",
    "measure": "bayesprune.structure",
    "pareto": "bayesprune.selection.pareto",
    "plots": "bayesprune.posterior",
    "posterior": None,
    "predict": "bayesprune.prediction",
    "prediction": None,
    "priors": None,
    "programs": None,
    "prune": "bayesprune.svi",
    "prune_edges": "bayesprune.edges",
    "report": None,
    "save": "bayesprune.export",
    "selection": None,
    "structure": None,
    "svi": None,
    "temperature": "bayesprune.prediction",
    "theory": None,
}
"""Name → the module that has it; None where it is itself a room of the library."""

__all__ = [
    "Autoregressive",
    "BayespruneError",
    "Bernoulli",
    "BernoulliGates",
    "Budget",
    "Callback",
    "Categorical",
    "Certificate",
    "Certified",
    "Cost",
    "Diagnosis",
    "Distilled",
    "EarlyStopping",
    "Epoch",
    "EvidenceTable",
    "FitResult",
    "Flattening",
    "Front",
    "GateSteps",
    "GatedModel",
    "Gaussian",
    "Group",
    "Likelihood",
    "ModelLoss",
    "Moves",
    "Own",
    "Pass",
    "Poisson",
    "Posterior",
    "Prediction",
    "Price",
    "Quality",
    "Recipe",
    "Shrink",
    "Training",
    "analyse",
    "baseline",
    "certify",
    "count",
    "data",
    "diagnose",
    "errors",
    "evaluate",
    "evidence",
    "export",
    "fit",
    "gate",
    "gated",
    "likelihoods",
    "load",
    "measure",
    "pareto",
    "plots",
    "posterior",
    "predict",
    "prediction",
    "priors",
    "programs",
    "prune",
    "prune_edges",
    "report",
    "save",
    "selection",
    "structure",
    "svi",
    "temperature",
    "theory",
]

if not TYPE_CHECKING:  # a checker of types reads the imports above, and still sees a name that is misspelt
    __getattr__, __dir__ = lazily(__name__, _PLACES)
