"""Training rows and held-out ones, told apart: each question rests on one kind, and is wrong on the other."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from bayesprune.callers import level
from bayesprune.errors import DataError, RowsWarning
from bayesprune.posterior.rows import Rows
from bayesprune.rows.digests import found_among, known_by
from bayesprune.svi.result import FitResult

MOSTLY = 0.5
"""Share of rows of the wrong kind from which on the argument is taken to be the wrong one."""


def told_apart(fits: Sequence[FitResult], rows: Rows | None, held_out: Rows | None) -> bool | None:
    """Make sure that rows are what they are given as, as far as digests can tell.

    Args:
        fits: each with digests of its training rows, if they were in memory.
        rows: that are said to have been trained on.
        held_out: that are said not to have been.

    Returns:
        Whether ``rows`` were trained on; None where that cannot be known, or there are none.

    Raises:
        DataError: more than half of the rows are of the other kind; or there are more training rows than the
            likelihood was told of.

    Warns:
        RowsWarning: some are, up to half.
    """
    known = None
    if rows is not None:
        total = min(fit.gated.likelihood.rows for fit in fits)
        if len(rows[0]) > total:
            raise DataError(
                f"rows: {len(rows[0]):,} rows, and the fit was told of {total:,}: the exact answers rest on "
                "training rows. Give those, and others as held_out=(x, y)."
            )
        for fit in fits:
            if fit.trained_on is not None:
                strange = int((~found_among(rows[0], fit.trained_on)).sum())
                _say(strange, len(rows[0]), "rows", "were not trained on", "held_out=(x, y)")
                known = True
    if held_out is not None:
        learnt = [fit.trained_on for fit in fits if fit.trained_on is not None]
        learnt += [digests] if rows is not None and (digests := known_by(rows[0])) is not None else []
        for digests in learnt:
            again = int(found_among(held_out[0], digests).sum())
            _say(again, len(held_out[0]), "held_out", "were trained on", "rows=(x, y)")
    return known


def _say(wrong: int, of: int, name: str, what: str, other: str) -> None:
    if not wrong:
        return
    text = f"{name}: {wrong:,} of the {of:,} rows {what}"
    if wrong > MOSTLY * of:
        raise DataError(f"{text}. Give them as {other}; rows= are training rows, held_out= are others.")
    warnings.warn(f"{text}; the answers that rest on them are off by these.", RowsWarning, stacklevel=level())
