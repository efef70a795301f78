"""Calibrated: do probabilities mean what they say? Exact enumeration where it is small, ranks elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from scipy.stats import chisquare

from bayesprune.posterior.diagnose.answer import Answer, Evidence, Measure, judged, not_asked
from bayesprune.posterior.diagnose.joint import log_joint, why_not
from bayesprune.posterior.integrate import integrate_weights, what_of
from bayesprune.posterior.rows import Rows
from bayesprune.priors.gates import MOST_ENUMERABLE_UNITS
from bayesprune.svi.estimators import all_configurations
from bayesprune.svi.mask_evidence import affordable, why_not_integrated
from bayesprune.svi.result import FitResult

QUESTION = "calibrated"
DISTANCE = 0.05
FALSE_ALARM = 0.01
UNLIKE = (
    "Either units stand for each other, which independent gates cannot say, or they share work that fewer "
    "could do, or a unit's gain is so near its price that certainty is an artefact of the price"
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
    """Distance from enumerated posteriors, where at most 12 units are left; and SBC ranks, where given.

    One is over masks given the weights as they were fitted, one with the weights integrated out, where these
    are few enough. Both are given the removals: units that are gone are not asked about.

    Args:
        evidence: draws, fits and rows.
        ranks: (ranks, draws) of simulation-based calibration.
    """
    measures: list[Measure] = []
    missing = _why_no_enumeration(evidence)
    apart = missing or next((text for fit in evidence.fits if (text := _why_as_they_are(fit, evidence))), "")
    if not missing and evidence.rows is not None:
        given = [fit for fit in evidence.fits if not why_not(fit.gated)]
        if len(given) == len(evidence.fits):
            measures += _distances("given these weights", [exact_of(fit, evidence.rows) for fit in given])
        if not apart:
            pairs = [integrated_of(fit, evidence.rows) for fit in evidence.fits]
            measures += _distances(what_of(evidence.fits[0].gated), pairs)
    if ranks is not None:
        p = rank_uniformity(*ranks)
        measures.append(Measure("p-value of uniform SBC ranks", p, f"≥ {FALSE_ALARM}", p >= FALSE_ALARM))
    if not measures:
        missing = missing or next(why_not(fit.gated) for fit in evidence.fits)
        remedy = "exclude= groups until 12 gates are left, or give ranks=(ranks, draws) of your simulations."
        return not_asked(QUESTION, missing, remedy)
    fine = [m.name.removeprefix("largest |q − exact| of a gate, ") for m in measures if m.name[:1] == "l"]
    notes = [UNLIKE] if any(m.holds is False and m.name.startswith("largest") for m in measures) else []
    if measures and not missing:
        notes.append(apart and f"The weights are as they were fitted: {apart}")
    return judged(
        QUESTION,
        tuple(measures),
        f"inclusion probabilities are those of all masks, {' and '.join(fine)}, given these removals"
        if fine
        else "ranks are uniform",
        "use a guide that knows of dependence between gates, enumerate (inference/enumerate_exact.py), or "
        "read the probabilities of bp.posterior.integrate_weights(result, rows).",
        ". ".join(note for note in notes if note),
    )


def _distances(name: str, pairs: list[tuple[Array, Array]]) -> list[Measure]:
    """How far q and exact probabilities are apart, in the fit where that is most."""
    distance = max(float(np.abs(q - p).max(initial=0)) for q, p in pairs)
    squared = max(float(np.square(q - p).mean()) if len(q) else 0.0 for q, p in pairs)
    return [
        Measure(f"largest |q − exact| of a gate, {name}", distance, f"≤ {DISTANCE}", distance <= DISTANCE),
        Measure(f"mean squared |q − exact|, {name}", squared),
    ]


def _why_no_enumeration(evidence: Evidence) -> str:
    if not evidence.fits or evidence.rows is None:
        return "needs the results of fit() and the training rows, or SBC ranks"
    most = max(int(fit.gated.alive.sum()) for fit in evidence.fits)
    if most > MOST_ENUMERABLE_UNITS:
        return f"{most} gates are left, and enumeration is for at most {MOST_ENUMERABLE_UNITS}"
    return next(
        (t for fit in evidence.fits if (t := why_not(fit.gated)) and _why_as_they_are(fit, evidence)), ""
    )


def _why_as_they_are(fit: FitResult, evidence: Evidence) -> str:
    """Why the weights are not integrated out under every mask; empty if they are."""
    gated = fit.gated
    missing = why_not_integrated(gated)
    if missing or evidence.rows is None:
        return missing
    masks, most = 2 ** int(gated.alive.sum()), affordable(gated, len(evidence.rows[0]))
    if masks > most:
        return f"{masks:,} masks would take long, for these weights and rows (unasked: {most:,})"
    return ""


def integrated_of(fit: FitResult, rows: Rows) -> tuple[Array, Array]:
    """Inclusion probabilities of the living units: of the guide, and by enumeration, weights integrated out.

    Args:
        fit: of a model for which ``why_not_integrated`` is empty.
        rows: (inputs, targets), the training rows.

    Returns:
        (living units,) and (living units,).
    """
    living = fit.gated.alive.cpu().numpy().astype(bool)
    theta = fit.gated.inclusion_prob().detach().cpu().double().numpy()
    return theta[living], integrate_weights(fit.gated, rows).inclusion_prob()[living]
