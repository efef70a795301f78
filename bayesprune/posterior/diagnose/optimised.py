"""Optimised: have the ELBO and the inclusion probabilities come to rest?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bayesprune.posterior.diagnose.answer import Answer, Evidence, Measure, judged, not_asked
from bayesprune.posterior.diagnose.still import GAIN as GAIN_OF_STEPS
from bayesprune.posterior.diagnose.still import gain_of_steps

QUESTION = "optimised"
LEAST_EPOCHS = 5
WINDOW = 0.1
"""Share of the epochs, the last ones, that are looked at; at least three."""
RISE = 0.02
"""Of the ELBO over the window, as a share of its range over all epochs."""
RISE_A_ROW = 0.01
"""Nats a row over the window: smaller than that is at rest, however small the range is."""
MOVED, MOVED_SHARE = 0.05, 0.01
GAIN = 0.01
"""Nats a row that a few steps at full rates may gain: a learning rate of nothing is at rest anywhere."""

Array = np.ndarray[Any, Any]


def window(epochs: int) -> int:
    """How many of the last epochs are looked at."""
    return min(epochs, max(3, math.ceil(WINDOW * epochs)))


def rise(elbo: Array) -> float:
    """What the ELBO gains over the last epochs, by the slope of the least-squares line through them.

    Args:
        elbo: (epochs,), nats.

    Returns:
        Nats over the window, negative where it falls.
    """
    last = elbo[-window(len(elbo)) :]
    if len(last) < 2:
        return float("nan")
    return float(np.polyfit(np.arange(len(last)), last, 1)[0] * (len(last) - 1))


def moved(inclusion_prob: Array) -> float:
    """Share of the gates whose probability has moved by more than 0.05 over the last epochs.

    Args:
        inclusion_prob: (epochs, gates).
    """
    last = inclusion_prob[-window(len(inclusion_prob)) :]
    return float((np.abs(last[-1] - last[0]) > MOVED).mean())


def optimised(evidence: Evidence) -> Answer:
    """Slope of the ELBO, and drift of the gates, over the last epochs; and what further steps would gain."""
    history = evidence.groups.get("history")
    if history is None:
        return not_asked(
            QUESTION, "the draws have no history", "give the results of fit(), or their posterior()."
        )
    if np.isnan(history["elbo"].values).all(axis=1).any():
        return not_asked(
            QUESTION,
            "a fit's history has no ELBO, as of samples that were not drawn from a guide",
            "look at the sampler's own R-hat and effective sample size (arviz.summary).",
        )
    rows = float(evidence.groups["constant_data"]["rows"])
    thetas = np.concatenate(
        [v.values for n, v in history.items() if str(n).startswith("inclusion_prob/")], -1
    )
    shares, a_row, drifts, epochs = [], [], [], []
    for elbo, theta in zip(history["elbo"].values, thetas, strict=True):
        there = ~np.isnan(elbo)
        elbo, theta = elbo[there], theta[there]
        epochs.append(len(elbo))
        gain = abs(rise(elbo))
        shares.append(gain / max(np.ptp(elbo), 1e-12) if len(elbo) > 1 else np.nan)
        a_row.append(gain / rows)
        drifts.append(moved(theta))
    worst = int(np.nanargmax(np.where(np.isnan(shares), np.inf, shares)))
    rests = all(s <= RISE or a <= RISE_A_ROW for s, a in zip(shares, a_row, strict=True))
    known, drift = None if math.isnan(shares[worst]) else rests, max(drifts)
    against = f"≤ {RISE}, or {RISE_A_ROW} nats a row"
    measures = [
        Measure("epochs", min(epochs), f"at least {LEAST_EPOCHS}", min(epochs) >= LEAST_EPOCHS),
        Measure("change of the ELBO, share of its range", shares[worst], against, known),
        Measure("change of the ELBO, nats a row", a_row[worst]),
        Measure(f"gates that moved by {MOVED}, share", drift, f"≤ {MOVED_SHARE}", drift <= MOVED_SHARE),
    ]
    remedy = "train for more epochs (epochs=), or let the learning rate fall further."
    note = "Whether the weights could still gain was not asked: that needs the results of fit() and rows="
    could = _gain(evidence)
    if could is not None:
        note = ""
        measures.append(
            Measure("gain of 20 steps at full rates, nats a row", could, f"≤ {GAIN}", could <= GAIN)
        )
        if could > GAIN:
            remedy = (
                "the weights have not arrived: raise the learning rate (Recipe(learning_rate=...)), let it "
                "fall later, or train for more epochs. A rate that falls further makes it worse."
            )
    last = window(min(epochs))
    fine = f"over the last {last} epochs neither the ELBO nor the gates went anywhere"
    fine += "" if note else ", and steps at full rates gain nothing"
    return judged(QUESTION, tuple(measures), fine, remedy, note)


def _gain(evidence: Evidence) -> float | None:
    """Of the fit whose weights could gain most; None where it cannot be told of every fit."""
    if evidence.fits and evidence.rows is not None:
        return max(gain_of_steps(fit.gated, evidence.rows) for fit in evidence.fits)
    known = evidence.groups["constant_data"].get(GAIN_OF_STEPS)
    return None if known is None or bool(known.isnull().any()) else float(known.max())
