"""Faithful: is what the guide says true of the network, and of the posterior?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bayesprune.posterior.arviz import Groups, pareto_k, values_in_tail
from bayesprune.posterior.diagnose.answer import Answer, Evidence, Measure, judged, not_asked
from bayesprune.posterior.diagnose.confidence import FALSE_ALARM, against_chance, brier
from bayesprune.posterior.diagnose.decided import ENTROPY, entropy, inclusion_prob
from bayesprune.posterior.diagnose.intervals import LEVEL, held
from bayesprune.posterior.diagnose.joint import why_not
from bayesprune.posterior.diagnose.neighbours import bound, certainty, integrated_bound
from bayesprune.posterior.integrate import what_of
from bayesprune.svi.mask_evidence import affordable, why_not_integrated

QUESTION = "faithful"
MOST_K = 0.7
"""Of PSIS, however many draws there are."""
POINTS, SCORE_SHARE = 1.0, 0.05
OVERCONFIDENCE = 0.1
INTERVALS = "share of targets in 90 % intervals"
NEIGHBOURS = 12
"""Masks beside the hard one, at the least, that are worth asking with the weights integrated out."""
EFFECTIVE = 0.5
"""Share of the draws that count, under the posterior's weights, from which on nothing is said of it."""

Array = np.ndarray[Any, Any]


def faithful(evidence: Evidence) -> Answer:
    """PSIS k̂ of the guide (a warning), sampled masks against the hard one, calibration, the mask's bounds."""
    groups, seen = evidence.groups, evidence.held_out or evidence.groups
    if "log_likelihood" not in seen:
        return not_asked(
            QUESTION,
            "needs rows to predict",
            "give diagnose training rows, rows=(x, y), for k̂ and the mask's probability, and held_out=(x, y) "
            "for the calibration error; or make the draws with rows=.",
        )
    tail, limit = _tail(groups)
    learnt = evidence.held_out is None and evidence.trained_on is True
    measures = [_tail_measure(tail, limit), *_scores(seen), *_calibration(seen, learnt)]
    measures += _intervals(seen, learnt)
    overconfident, missing = _overconfidence(evidence)
    measures += overconfident
    notes = [missing] if missing else []
    if learnt and any(m.name.startswith("expected calibration") for m in measures):
        notes.append("The calibration error is of training rows, and not judged: give held_out=(x, y)")
    if learnt and any(m.name.startswith(INTERVALS) for m in measures):
        notes.append("What intervals hold is of training rows, and not judged: give held_out=(x, y)")
    notes += [_too(m.value) for m in measures if m.name.startswith(INTERVALS) and m.holds is False]
    if np.isnan(tail) and "elbo" in groups["sample_stats"]:
        notes += _effective(groups)
    if tail > limit:
        notes.append(f"k̂ = {tail:.2g} warns that draws of the guide cannot stand for the posterior")
    certain = float(entropy(inclusion_prob(groups)).max()) <= ENTROPY
    if certain and not overconfident:
        notes.insert(0, "Every draw is the same mask: that draws agree does not say that it is converged")
    if certain and any(m.holds is False for m in overconfident):
        notes.insert(
            0, "The mask is certain but unfaithful: the guide is sure of it, and the posterior is not"
        )
    if any(m.holds is False and "integrated out" in m.name for m in overconfident):
        notes.append(
            "With the weights free to follow each mask another is as probable: units may share work that "
            "fewer can do, or not be worth the weights that they need"
        )
    return judged(
        QUESTION,
        tuple(measures),
        "sampled masks predict as the hard mask does, and given these removals no mask beside it contradicts "
        "the guide",
        "do not read the inclusion probabilities as beliefs: compare masks by their held-out score, look for "
        "correlated units that can stand for each other, or enumerate the units in doubt.",
        ". ".join(notes),
    )


def tail_limit(draws: int, values: int) -> float:
    r"""How large k̂ may be for weights of so many draws to be trusted.

    .. math:: \min(1 - 1 / \log_{10} S,\ 0.7)

    after Vehtari, Simpson, Gelman, Yao & Gabry, arXiv 1507.02646 (JMLR 2024). A tail is fitted to the largest
    min(S / 5, 3√S) of S weights. Where draws repeat and it has only D different values, it tells no more than
    that of fewer draws would, and S is as many as have a tail of D.

    Args:
        draws: S.
        values: D, different ones in the tail.

    Returns:
        The limit; below zero where so few draws tell nothing.

    Example:
        >>> [round(tail_limit(s, s), 2) for s in (50, 200, 1000, 10_000)], round(tail_limit(1000, 10), 2)
        ([0.41, 0.57, 0.67, 0.7], 0.41)
    """
    worth = min(draws, max(5 * values, values**2 / 9))
    return min(1 - 1 / math.log10(worth), MOST_K) if worth > 1 else -math.inf


def _tail(groups: Groups) -> tuple[float, float]:
    """k̂ of the weights p(z, y)/q(z), and its limit, of the worst fit; NaN where none can be told."""
    if "elbo" not in groups["sample_stats"]:
        return math.nan, math.nan
    logs = groups["sample_stats"]["elbo"].values
    found = [(pareto_k(values), tail_limit(len(values), values_in_tail(values))) for values in logs]
    return max(found, key=lambda pair: -np.inf if np.isnan(pair[0]) else pair[0] - pair[1])


def _tail_measure(tail: float, limit: float) -> Measure:
    """A warning only, since good guides of many gates have a high one too."""
    against = "a warning; NaN: it cannot be told"
    return Measure("PSIS k̂ of the guide", tail, against if np.isnan(tail) else f"≤ {limit:.2g}, {against}")


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


def _calibration(groups: Groups, learnt: bool) -> list[Measure]:
    """On training rows the error says how sure the network is of what it has seen: told, and not judged."""
    predictive, observed = groups["posterior_predictive"], groups.get("observed_data")
    classes = "mean" in predictive and predictive["y"].dtype == np.int16 and predictive["mean"].ndim == 3
    if observed is None or not classes:
        return []
    labels, means = observed["y"].values, predictive["mean"].values
    found = [against_chance(probs, labels, FALSE_ALARM / len(means)) for probs in means]
    worst = max(found, key=lambda one: (not one.holds, one.error - one.limit))
    soft = [brier(probs, labels) for probs in means]
    hard = [brier(probs, labels) for probs in predictive["hard_mean"].values]
    return [
        Measure("expected calibration error", worst.error, worst.threshold, None if learnt else worst.holds),
        Measure("the same of a calibrated predictor, mean", worst.mean),
        Measure("Brier score of the averaged draws", max(soft)),
        Measure("Brier score of the hard mask", max(hard)),
    ]


def _intervals(groups: Groups, learnt: bool) -> list[Measure]:
    """Of numbers: the share of targets within intervals, of the fit where that is least like the level."""
    predictive, observed = groups["posterior_predictive"], groups.get("observed_data")
    if observed is None or predictive["y"].dtype == np.int16:
        return []
    targets, drawn = observed["y"].values, predictive["y"].values  # (rows, ...), (fits, draws, rows, ...)
    if set(np.unique(targets[:1000])) <= {0, 1}:
        return []
    if drawn.shape[1] < 2 * len(drawn) / FALSE_ALARM - 1:  # too few to convict anyone
        return []
    false_alarm = FALSE_ALARM / len(drawn)
    found = [held(one, targets.reshape(one.shape[1:])) for one in drawn]
    worst = min(found, key=lambda one: (one.holds(false_alarm), one.p_value))
    holds = None if learnt else worst.holds(false_alarm)
    return [Measure(INTERVALS, worst.share, worst.threshold(false_alarm), holds)]


def _too(share: float) -> str:
    if share > LEVEL:
        return (
            "Intervals are too wide: there may be too little training, or prices so high that signal is lost"
        )
    return (
        "Intervals are too narrow: let weights have a posterior, Recipe(compact_weights='normal'), average "
        "several fits, or fit a temperature on held-out rows, bp.temperature"
    )


def _overconfidence(evidence: Evidence) -> tuple[list[Measure], str]:
    if not evidence.fits or evidence.rows is None:
        return [], "Whether the posterior is as sure of the mask needs the results of fit() and rows"
    models = [fit.gated for fit in evidence.fits]
    found = [Measure("probability of the hard mask under the guide", max(map(certainty, models)))]
    missing = next((text for gated in models if (text := why_not(gated))), "")
    apart = next((text for gated in models if (text := why_not_integrated(gated))), "")
    if not apart and min(affordable(gated, len(evidence.rows[0])) for gated in models) < NEIGHBOURS:
        apart = "so many weights and rows would take long; compare masks by bp.posterior.integrate_weights"
    if not missing:
        found += _excess("given these weights", [(certainty(g), bound(g, evidence.rows)) for g in models])
    if not apart:
        pairs = [(certainty(g), integrated_bound(g, evidence.rows)) for g in models]
        found += _excess(what_of(models[0]), pairs)
    if missing and apart:
        return [], f"The posterior's own certainty is not known: {missing}"
    return found, f"Co-adapted weights were not looked for: {apart}" if apart else ""


def _excess(name: str, pairs: list[tuple[float, float]]) -> list[Measure]:
    """What the guide gives the mask beyond what the posterior can, in the fit where that is most."""
    given, most = max(pairs, key=lambda pair: pair[0] - pair[1])
    excess = given - most
    return [
        Measure(f"the same under the posterior {name}, at most", most),
        Measure(f"overconfidence {name}, at least", excess, f"≤ {OVERCONFIDENCE}", excess <= OVERCONFIDENCE),
    ]
