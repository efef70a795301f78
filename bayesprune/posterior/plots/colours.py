"""Colours that people with any colour vision can tell apart, on white and on black, and marks beside them.

Of fits: Okabe & Ito's palette (*Color universal design*, 2008) without black, light yellow and the orange
that white swallows. Of probabilities: cividis (Nuñez, Anderton & Renslow, PLOS ONE 2018), whose lightness
grows evenly.
"""

from __future__ import annotations

from typing import Any

from bayesprune.posterior.plots.figures import MOST_NAMED

FITS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
LINES = ("-", "--", "-.", ":")
PROBABILITY = "cividis"
REFERENCE = "#808080"
"""What data are held against: half-way between white and black."""


def line_style(fit: int, fits: int) -> dict[str, Any]:
    """How the line of one fit looks among several: colour and dashes differ, so that either is enough.

    Args:
        fit: its number, from 0.
        fits: how many there are.
    """
    if fits > MOST_NAMED:
        return {"color": FITS[0], "linewidth": 0.8, "alpha": 0.6}
    return {"color": FITS[fit % len(FITS)], "linestyle": LINES[(fit // len(FITS) + fit) % len(LINES)]}


def mark_style(fit: int, fits: int) -> dict[str, Any]:
    """How the marks of one fit look among several: colour and shape differ.

    Args:
        fit: its number, from 0.
        fits: how many there are.
    """
    if fits > MOST_NAMED:
        return {"color": FITS[0], "marker": "o", "alpha": 0.6}
    return {"color": FITS[fit % len(FITS)], "marker": MARKS[fit % len(MARKS)]}


def label(labels: tuple[str, ...], fit: int) -> str | None:
    """What a legend says of a fit: its name; of many, how many they are, once."""
    if len(labels) > MOST_NAMED:
        return f"each of {len(labels)} fits" if fit == 0 else None
    return labels[fit]
