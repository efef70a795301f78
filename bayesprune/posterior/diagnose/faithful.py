"""Faithful: is what the guide says true of the network, and of the posterior?"""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesprune.posterior.arviz import Groups, pareto_k
from bayesprune.posterior.diagnose.answer import Answer, Evidence, Measure, judged, not_asked
from bayesprune.posterior.diagnose.decided import ENTROPY, entropy, inclusion_prob
from bayesprune.posterior.diagnose.joint import why_not
from bayesprune.posterior.diagnose.neighbours import bound, certainty

QUESTION = "faithful"
K = 0.7
POINTS, SCORE_SHARE = 1.0, 0.05
ECE = 0.05
OVERCONFIDENCE = 0.1
BINS = 10
EFFECTIVE = 0.5
"""Share of the draws that count, under the posterior's weights, from which on nothing is said of it."""

Array = np.ndarray[Any, Any]


def calibration_error(probs: Array, labels: Array, bins: int = BINS) -> float:
    """Expected calibration error: |accuracy − confidence|, weighted by rows, in bins of confidence.

    Args:
        probs: (rows, classes).
        labels: (rows,), class numbers.
        bins: of equal width.
    """
    confidence, right = probs.max(-1), probs.argmax(-1) == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(right[which == b].mean() - confidence[which == b].mean()) * (which == b).mean()
        for b in np.unique(which)
    ]
    return float(sum(gaps))


def brier(probs: Array, labels: Array) -> float:
    """Mean over rows of Σ_c (p_c − 1[y = c])², between 0 and 2.

    Args:
        probs: (rows, classes).
        labels: (rows,), class numbers.
    """
    return float(np.square(probs - np.eye(probs.shape[-1])[labels]).sum(-1).mean())


def faithful(evidence: Evidence) -> Answer:
    """PSIS k̂ of the guide (a warning), sampled masks against the hard one, ECE, Brier, the mask's bound."""
    groups = evidence.groups
    if "log_likelihood" not in groups:
        return not_asked(
            QUESTION,
            "needs rows to predict",
            "give rows=(x, y) to diagnose or to to_arviz: training rows for k̂ and the mask's probability, "
            "held-out ones for the calibration error.",
        )
    measures = [_tail(groups), *_scores(groups), *_calibration(groups)]
    overconfident, missing = _overconfidence(evidence)
    measures += overconfident
    notes = [missing] if missing else []
    tail = measures[0].value
    if np.isnan(tail):
        notes += _effective(groups)
    if tail > K:
        notes.append(f"k̂ = {tail:.2g} warns that draws of the guide cannot stand for the posterior")
    certain = float(entropy(inclusion_prob(groups)).max()) <= ENTROPY
    if certain and not overconfident:
        notes.insert(0, "Every draw is the same mask: that draws agree does not say that it is converged")
    if certain and any(m.holds is False for m in overconfident):
        notes.insert(
            0, "The mask is certain but unfaithful: the guide is sure of it, and the posterior is not"
        )
    return judged(
        QUESTION,
        tuple(measures),
        "sampled masks predict as the hard mask does, and nothing that was looked at contradicts the guide",
        "do not read the inclusion probabilities as beliefs: compare masks by their held-out score, look for "
        "correlated units that can stand for each other, or enumerate the units in doubt.",
        ". ".join(notes),
    )


def _tail(groups: Groups) -> Measure:
    """Of the weights p(z, y)/q(z): a warning only, since good guides of many gates have a high one too."""
    tails = np.array([pareto_k(values) for values in groups["sample_stats"]["elbo"].values])
    worst = float(np.nanmax(tails)) if not np.isnan(tails).all() else float("nan")
    return Measure("PSIS k̂ of the guide", worst, f"≤ {K}, a warning; NaN: it cannot be told")


def _effective(groups: Groups) -> list[str]:
    """Where k̂ cannot be told, and draws do not all weigh the same: how many of them count."""
    logs = groups["sample_stats"]["elbo"].values
    weights = np.exp(logs - logs.max(1, keepdims=True))
    share = float((weights.sum(1) ** 2 / np.square(weights).sum(1)).min()) / logs.shape[1]
    if share > EFFECTIVE:
        return []
    return [
        "k̂ cannot be told, as draws weigh one of a few values; weighted as the posterior has them, they "
        f"count as {share:.0%} of their number"
    ]


def _scores(groups: Groups) -> list[Measure]:
    score = groups["sample_stats"]["score"]
    sampled, hard = score.values.mean(1), groups["posterior_predictive"]["hard_score"].values
    gap = np.abs(sampled - hard)
    worst = int(gap.argmax())
    name = str(score.attrs.get("units", "score"))
    if name == "error_percent":
        limit, against = POINTS, f"≤ {POINTS:g} point"
    else:
        limit, against = SCORE_SHARE * abs(float(hard[worst])), f"≤ {SCORE_SHARE:.0%} of it"
    return [
        Measure(f"{name} of the hard mask", float(hard[worst])),
        Measure(
            f"{name} of sampled masks, difference", float(gap[worst]), against, bool(gap[worst] <= limit)
        ),
    ]


def _calibration(groups: Groups) -> list[Measure]:
    predictive, observed = groups["posterior_predictive"], groups.get("observed_data")
    classes = "mean" in predictive and predictive["y"].dtype == np.int16 and predictive["mean"].ndim == 3
    if observed is None or not classes:
        return []
    labels = observed["y"].values
    errors = [calibration_error(probs, labels) for probs in predictive["mean"].values]
    soft = [brier(probs, labels) for probs in predictive["mean"].values]
    hard = [brier(probs, labels) for probs in predictive["hard_mean"].values]
    return [
        Measure("expected calibration error", max(errors), f"≤ {ECE}", max(errors) <= ECE),
        Measure("Brier score of the averaged draws", max(soft)),
        Measure("Brier score of the hard mask", max(hard)),
    ]


def _overconfidence(evidence: Evidence) -> tuple[list[Measure], str]:
    if not evidence.fits or evidence.rows is None:
        return [], "Whether the posterior is as sure of the mask needs the results of fit() and rows"
    missing = next((text for fit in evidence.fits if (text := why_not(fit.gated))), "")
    if missing:
        return [], f"The posterior's own certainty is not known: {missing}"
    pairs = [(certainty(fit.gated), bound(fit.gated, evidence.rows)) for fit in evidence.fits]
    given, most = max(pairs, key=lambda pair: pair[0] - pair[1])
    excess = given - most
    return [
        Measure("probability of the hard mask under the guide", given),
        Measure("the same under the posterior, at most", most),
        Measure("overconfidence, at least", excess, f"≤ {OVERCONFIDENCE}", excess <= OVERCONFIDENCE),
    ], ""
