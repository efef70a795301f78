"""Calibrated: do probabilities mean what they say? Exact enumeration where it is small, ranks elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from scipy.stats import chisquare

from bayesprune.posterior.diagnose.answer import Answer, Evidence, Measure, judged, not_asked
from bayesprune.posterior.diagnose.joint import log_joint, why_not
from bayesprune.posterior.rows import Rows
from bayesprune.priors.gates import MOST_ENUMERABLE_UNITS
from bayesprune.svi.estimators import all_configurations
from bayesprune.svi.result import FitResult

QUESTION = "calibrated"
DISTANCE = 0.05
FALSE_ALARM = 0.01
UNLIKE = (
    "Either units stand for each other, which independent gates cannot say, or a unit's gain is so near its "
    "price that certainty is an artefact of the price"
)

Array = np.ndarray[Any, Any]


def exact_inclusion(log_joint: Array, masks: Array) -> Array:
    """p(z_u = 1 | y) of every unit, by summing over all masks.

    Args:
        log_joint: (masks,), log p(z, y), nats, up to a constant.
        masks: (masks, units), all of them.

    Returns:
        (units,), probabilities.
    """
    return np.asarray(softmax(log_joint) @ masks)


def sbc_rank(truth: float, draws: Array, generator: np.random.Generator) -> int:
    """The rank of a parameter among posterior draws, which is uniform on 0 … draws if all is well.

    Simulation-based calibration (Talts et al., arXiv 1804.06788): draw a parameter from the prior and data
    given it, fit, draw from the posterior, rank. Gates are discrete, so ties are broken at random.

    Args:
        truth: a statistic of what the data were made with.
        draws: (draws,), the same of posterior draws, independent of each other.
        generator: for ties.
    """
    ties = int((draws == truth).sum())
    return int((draws < truth).sum()) + int(generator.integers(ties + 1))


def rank_edges(draws: int, bins: int) -> Array:
    """(bins + 1,), the ranks at which each bin begins; a bin holds whole ranks, at least one.

    Args:
        draws: posterior draws in each simulation.
        bins: of ranks.
    """
    return np.linspace(0, draws + 1, min(bins, draws + 1) + 1).round().astype(int)


def rank_uniformity(ranks: Array, draws: int, bins: int = 10) -> float:
    """p-value of the χ² test that ranks are uniform on 0 … draws.

    Args:
        ranks: (simulations,), as ``sbc_rank`` gives them.
        draws: posterior draws in each simulation.
        bins: of ranks; expect at least five simulations in each.
    """
    edges = rank_edges(draws, bins)
    counts, widths = np.histogram(ranks, edges)[0], np.diff(edges)
    return float(chisquare(counts, len(ranks) * widths / (draws + 1)).pvalue)


def exact_of(fit: FitResult, rows: Rows) -> tuple[Array, Array]:
    """Inclusion probabilities of the living units: of the guide, and by enumeration.

    Args:
        fit: of a model with at most 12 living units, for which ``joint.why_not`` is empty.
        rows: (inputs, targets), the training rows.

    Returns:
        (living units,) and (living units,).
    """
    gated = fit.gated
    living = gated.alive.cpu().nonzero().squeeze(1)
    configurations = all_configurations(len(living))
    masks = torch.zeros(len(configurations), len(gated.alive))
    masks[:, living] = configurations.to(masks)
    exact = exact_inclusion(log_joint(gated, masks, rows), configurations.numpy())
    return gated.inclusion_prob().detach().cpu().double().numpy()[living.numpy()], exact


def calibrated(evidence: Evidence, ranks: tuple[Array, int] | None = None) -> Answer:
    """Distance from the enumerated posterior, where at most 12 units are left; and SBC ranks, where given.

    Args:
        evidence: draws, fits and rows.
        ranks: (ranks, draws) of simulation-based calibration.
    """
    measures: list[Measure] = []
    missing = _why_no_enumeration(evidence)
    if not missing and evidence.rows is not None:
        pairs = [exact_of(fit, evidence.rows) for fit in evidence.fits]
        distance = max(float(np.abs(q - p).max(initial=0)) for q, p in pairs)
        squared = max(float(np.square(q - p).mean()) if len(q) else 0.0 for q, p in pairs)
        against = f"≤ {DISTANCE}"
        measures += [
            Measure("largest |q − exact| of a gate", distance, against, distance <= DISTANCE),
            Measure("mean squared |q − exact|", squared),
        ]
    if ranks is not None:
        p = rank_uniformity(*ranks)
        measures.append(Measure("p-value of uniform SBC ranks", p, f"≥ {FALSE_ALARM}", p >= FALSE_ALARM))
    if not measures:
        remedy = "exclude= groups until 12 gates are left, or give ranks=(ranks, draws) of your simulations."
        return not_asked(QUESTION, missing, remedy)
    wrong = any(m.holds is False for m in measures[:1]) and not missing
    return judged(
        QUESTION,
        tuple(measures),
        "inclusion probabilities are those of the exact posterior" if not missing else "ranks are uniform",
        "use a guide that knows of dependence between gates, or enumerate (inference/enumerate_exact.py) and "
        "read the exact probabilities.",
        UNLIKE * wrong,
    )


def _why_no_enumeration(evidence: Evidence) -> str:
    if not evidence.fits or evidence.rows is None:
        return "needs the results of fit() and the training rows, or SBC ranks"
    most = max(int(fit.gated.alive.sum()) for fit in evidence.fits)
    if most > MOST_ENUMERABLE_UNITS:
        return f"{most} gates are left, and enumeration is for at most {MOST_ENUMERABLE_UNITS}"
    return next((text for fit in evidence.fits if (text := why_not(fit.gated))), "")
