"""Decided: is every gate nearly certain to be open, or closed? It says nothing about being right."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import entr

from bayesprune.posterior.arviz import Groups
from bayesprune.posterior.diagnose.answer import Answer, Evidence, Measure, judged
from bayesprune.svi.result import ROUNDED

QUESTION = "decided"
ENTROPY = 0.05
BETWEEN = (0.05, 0.95)
SHARE = 0.01

Array = np.ndarray[Any, Any]


def inclusion_prob(groups: Groups) -> Array:
    """(chains, gates of all groups), q(z = 1)."""
    posterior = groups["posterior"]
    parts = [v.isel(draw=0).values for n, v in posterior.items() if str(n).startswith("inclusion_prob/")]
    return np.concatenate(parts, -1).astype(np.float64)


def entropy(theta: Array) -> Array:
    """(...), mean entropy of a gate, nats; at most log 2.

    Args:
        theta: (..., gates), q(z = 1).
    """
    return np.asarray((entr(theta) + entr(1 - theta)).mean(-1))


def undecided(theta: Array) -> Array:
    """(...), share of the gates with 0.05 < q(z = 1) < 0.95.

    Args:
        theta: (..., gates), q(z = 1).
    """
    return np.asarray(((theta > BETWEEN[0]) & (theta < BETWEEN[1])).mean(-1))


def decided(evidence: Evidence) -> Answer:
    """Entropy of the gates, and how many are in between, or were until time was up; the worst fit counts."""
    theta = inclusion_prob(evidence.groups)
    nats, share = float(entropy(theta).max()), float(undecided(theta).max())
    rounded = float(evidence.groups["constant_data"]["rounded"].max()) / theta.shape[-1]
    measures = (
        Measure("entropy, nats a gate", nats, f"≤ {ENTROPY}", nats <= ENTROPY),
        Measure("gates between 0.05 and 0.95, share", share, f"≤ {SHARE}", share <= SHARE),
        Measure("gates put at a vertex when time was up, share", rounded, f"≤ {ROUNDED}", rounded <= ROUNDED),
    )
    return judged(
        QUESTION,
        measures,
        "the mask is deterministic, which is no evidence that it is right: see 'faithful'",
        "give the selection more time (Recipe.decide, epochs=), or raise the price of the groups concerned.",
    )
