"""Reproducible: do independent fits come to the same size, and to the same units?

R-hat on single gates is meaningless: units swap places between fits, and a gate that is the same in all draws
has none. So it is asked of counts and of costs.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import chi2

from bayesprune.gated.dead import median_units
from bayesprune.posterior.arviz import effective_draws, rank_rhat
from bayesprune.posterior.diagnose.answer import Answer, Evidence, Measure, judged, not_asked
from bayesprune.posterior.diagnose.decided import BETWEEN, inclusion_prob
from bayesprune.posterior.diagnose.matching import matched_jaccard

QUESTION = "reproducible"
LEAST_FITS = 4
RHAT = 1.01
"""Of ranks (Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021)."""
LEAST_DRAWS = 200
"""Of each fit, from which on equal fits are above 1.01 in 1 % of cases; with half as many, in 10 %."""
ESS = 100
"""Effective draws of a fit that R-hat can be relied on with (the same source)."""
UNITS, SHARE_OF_UNITS = 1.0, 0.05
SHARE_OF_MACS = 0.1
JACCARD = 0.8

Array = np.ndarray[Any, Any]


def spread(values: Array) -> tuple[float, float]:
    """How far the chains lie apart, in their means and, of many draws, in their 5, 50 and 95 % quantiles.

    Args:
        values: (chains, draws).

    Returns:
        Largest minus smallest, of whichever differs most; and that as a share of the mean of all.
    """
    places = [values.mean(axis=1, dtype=np.float64)]
    if values.shape[1] >= LEAST_DRAWS:
        places += list(np.quantile(values, (0.05, 0.5, 0.95), axis=1))
    apart = max(float(np.ptp(place)) for place in places)
    return apart, apart / max(float(places[0].mean()), 1e-12)


def factor_of_spread(fits: int) -> tuple[float, float]:
    """What the standard deviation of so few numbers has to be multiplied with: a 95 % interval.

    Args:
        fits: numbers, one a fit, of which no more is known than that they are a sample (normal).

    Example:
        >>> [round(factor, 2) for factor in factor_of_spread(4)]
        [0.57, 3.73]
    """
    low, high = chi2.ppf((0.975, 0.025), fits - 1)
    return float(np.sqrt((fits - 1) / low)), float(np.sqrt((fits - 1) / high))


def jaccard(kept: Array) -> float:
    """Mean over pairs of fits of |A ∩ B| / |A ∪ B|; 1 where both are empty.

    Args:
        kept: (fits, units), bool.
    """
    pairs = [
        (kept[a] & kept[b]).sum() / max((kept[a] | kept[b]).sum(), 1)
        for a, b in combinations(range(len(kept)), 2)
    ]
    empty = [not (kept[a] | kept[b]).any() for a, b in combinations(range(len(kept)), 2)]
    return float(np.mean([1.0 if none else share for share, none in zip(pairs, empty, strict=True)]))


def reproducible(evidence: Evidence) -> Answer:
    """Kept counts and expected MACs between fits, and how far they keep the same units."""
    posterior, stats = evidence.groups["posterior"], evidence.groups["sample_stats"]
    fits = posterior.sizes["chain"]
    if fits < LEAST_FITS:
        return not_asked(
            QUESTION,
            f"needs {LEAST_FITS} fits, and has {fits}",
            "fit with four seeds, and give all: bp.diagnose([first, second, …]); bayesprune run … --seeds 4.",
        )
    if bool((inclusion_prob(evidence.groups) > BETWEEN[1]).all()):
        return not_asked(
            QUESTION,
            "nothing was pruned: every fit keeps all units, so that nothing could have come out otherwise",
            "raise the price, or set a budget, so that something has to go; then compare the fits.",
        )
    counts = {
        f"units kept in {str(name)[5:]}": gates.values.sum(-1, dtype=np.int64)
        for name, gates in posterior.items()
        if str(name).startswith("gate/")
    }
    macs = stats["macs"].values
    measures, apart = [], []
    for name, kept in counts.items():
        measure, fine = _rhat(name, kept, f"{UNITS:g} unit or {SHARE_OF_UNITS:.0%}", UNITS, SHARE_OF_UNITS)
        measures.append(measure)
        if not fine:
            means = kept.mean(1)
            apart.append(f"{name[14:]} keeps {means.min():.3g} to {means.max():.3g} units")
    measure, fine = _rhat("expected MACs", macs, f"{SHARE_OF_MACS:.0%}", 0.0, SHARE_OF_MACS)
    share = spread(macs)[1]
    measures += [measure, Measure("spread of MACs, share", share)]
    if not fine:
        apart.append(f"expected MACs differ by {share:.0%}")
    measures += _draws_that_count([*counts.values(), macs])
    measures += _same_units(evidence)
    notes = ["; ".join(apart) if apart else _identity_note(measures)]
    if not any(np.ptp(values, axis=1).any() for values in (*counts.values(), macs)):
        low, high = factor_of_spread(fits)
        notes.append(
            "Each fit has one mask, so that R-hat says nothing and sizes are compared as they are: of "
            f"{fits} numbers the standard deviation is known to a factor of {low:.2g} to {high:.2g}"
        )
    return judged(
        QUESTION,
        tuple(measures),
        f"{fits} fits agree in size",
        "train for longer; or take the size as uncertain, and choose among the fits on held-out rows.",
        ". ".join(note for note in notes if note),
    )


def _rhat(name: str, values: Array, else_: str, apart: float, share: float) -> tuple[Measure, bool]:
    """R-hat of a number, which holds too where fits lie no further apart than matters."""
    rhat, (difference, relative) = rank_rhat(values), spread(values)
    close = difference <= apart or relative <= share
    if values.shape[1] >= LEAST_DRAWS or np.isinf(rhat):
        fine = rhat <= RHAT or close
        return Measure(f"R-hat of {name}", rhat, f"≤ {RHAT}, or {else_} between the fits", fine), fine
    against = f"{else_} between the fits; R-hat asks for {LEAST_DRAWS} draws a fit"
    return Measure(f"R-hat of {name}", rhat, against, close), close


def _draws_that_count(numbers: list[Array]) -> list[Measure]:
    """The smallest effective sample sizes, where there are enough draws for R-hat, and they differ."""
    vary = [values for values in numbers if np.ptp(values, axis=1).any()]
    if not vary or vary[0].shape[1] < LEAST_DRAWS:
        return []
    bulk, tail = (min(sizes) for sizes in zip(*map(effective_draws, vary), strict=True))
    least = f"of {vary[0].size} draws; R-hat asks for {ESS * len(vary[0])}"
    return [
        Measure("smallest bulk ESS of these", bulk, least),
        Measure("smallest tail ESS of these", tail, least),
    ]


def _same_units(evidence: Evidence) -> list[Measure]:
    posterior = evidence.groups["posterior"]
    found = []
    if "inclusion_prob/input" in posterior:
        kept = posterior["inclusion_prob/input"].isel(draw=0).values > 0.5
        share = jaccard(kept)
        found.append(Measure("Jaccard of inputs kept", share, f"≥ {JACCARD}", share >= JACCARD))
    if evidence.fits and evidence.rows is not None:
        for group, share in matched_jaccard(evidence.fits, evidence.rows[0]).items():
            if _whole(evidence, group):
                continue  # there was no choice that could have come out otherwise
            name = f"Jaccard of units kept in {group}, matched by activation"
            found.append(Measure(name, share, f"≥ {JACCARD}", share >= JACCARD))
    return found


def _whole(evidence: Evidence, group: str) -> bool:
    """Whether every fit keeps all units of a group."""
    kept = [fit.gated.by_group(median_units(fit.gated))[group] for fit in evidence.fits]
    return all(bool(mask.all()) for mask in kept)


def _identity_note(measures: list[Measure]) -> str:
    others = [m for m in measures if m.name.startswith("Jaccard") and m.holds is False]
    return "The fits agree in how many units they keep, and not in which" if others else ""
