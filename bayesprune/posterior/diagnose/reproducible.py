"""Reproducible: do independent fits come to the same size, and to the same units?

R-hat on single gates is meaningless: units swap places between fits, and a gate that is the same in all draws
has none. So it is asked of counts and of costs.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from bayesprune.gated.dead import median_units
from bayesprune.posterior.diagnose.answer import Answer, Evidence, Measure, judged, not_asked
from bayesprune.posterior.diagnose.matching import matched_jaccard

QUESTION = "reproducible"
LEAST_FITS = 4
RHAT = 1.1
UNITS, SHARE_OF_UNITS = 1.0, 0.05
SHARE_OF_MACS = 0.1
JACCARD = 0.8

Array = np.ndarray[Any, Any]


def split_rhat(values: Array) -> float:
    """R-hat of chains that are split in halves (Gelman et al., Bayesian Data Analysis, 3rd ed., 11.4).

    Args:
        values: (chains, draws).

    Returns:
        R̂; 1 where all values are the same, infinity where each half is constant and they differ.
    """
    half = values.shape[1] // 2
    if half < 2:
        return float("nan")
    parts = np.concatenate([values[:, :half], values[:, -half:]]).astype(np.float64)
    within = parts.var(axis=1, ddof=1).mean()
    between = parts.mean(axis=1).var(ddof=1)
    if within < 1e-12:
        return 1.0 if between < 1e-12 else float("inf")
    return float(np.sqrt((half - 1) / half + between / within))


def spread(values: Array) -> tuple[float, float]:
    """How far the means of the chains lie apart.

    Args:
        values: (chains, draws).

    Returns:
        Largest minus smallest mean; and that as a share of the mean of all.
    """
    means = values.mean(axis=1, dtype=np.float64)
    return float(np.ptp(means)), float(np.ptp(means) / max(means.mean(), 1e-12))


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
    measures, apart = [], []
    for name, gates in posterior.items():
        if str(name).startswith("gate/"):
            kept = gates.values.sum(-1, dtype=np.int64)
            group, (units, share) = str(name)[5:], spread(kept)
            rhat = split_rhat(kept)
            agree = rhat <= RHAT or units <= UNITS or share <= SHARE_OF_UNITS
            against = f"≤ {RHAT}, or {UNITS:g} unit or {SHARE_OF_UNITS:.0%} between the fits"
            measures.append(Measure(f"R-hat of units kept in {group}", rhat, against, agree))
            if not agree:
                means = kept.mean(1)
                apart.append(f"{group} keeps {means.min():.3g} to {means.max():.3g} units")
    rhat, (_, share) = split_rhat(stats["macs"].values), spread(stats["macs"].values)
    agree = rhat <= RHAT or share <= SHARE_OF_MACS
    against = f"≤ {RHAT}, or {SHARE_OF_MACS:.0%} between the fits"
    measures += [
        Measure("R-hat of expected MACs", rhat, against, agree),
        Measure("spread of MACs, share", share),
    ]
    if not agree:
        apart.append(f"expected MACs differ by {share:.0%}")
    measures += _same_units(evidence)
    note = "; ".join(apart) if apart else _identity_note(measures)
    return judged(
        QUESTION,
        tuple(measures),
        f"{fits} fits agree in size",
        "train for longer; or take the size as uncertain, and choose among the fits on held-out rows.",
        note,
    )


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
