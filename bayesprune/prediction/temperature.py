"""A temperature for predictions, fitted on rows that no fit has seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy.optimize import minimize_scalar

from bayesprune.errors import PosteriorError
from bayesprune.prediction.predict import Fit, check_numbers, components, fits_of
from bayesprune.prediction.prediction import Prediction
from bayesprune.rows import Source

LOWEST, HIGHEST = 0.05, 20.0


def temperature(
    results: Fit | Sequence[Fit],
    rows: Source,
    *,
    draws: int = 100,
    at: str = "end",
    batch_size: int | None = None,
    seed: int = 0,
) -> float:
    """The temperature under which held-out rows have the least negative log-likelihood.

    One number cannot overfit more than a few hundred rows by much (Guo et al. 2017, arXiv 1706.04599); rows
    that were trained on say that no temperature is needed, or less than none.

    Args:
        results: of one fit, or of several, whose predictions count equally.
        rows: (inputs, targets) that no fit has seen, and that nothing is judged by afterwards.
        draws: of each fit, as for ``predict``.
        at: as for ``predict``.
        batch_size: rows at a time.
        seed: of the draws.

    Returns:
        T in [0.05, 20], for ``bp.predict(..., temperature=T)``.

    Raises:
        PosteriorError, LikelihoodError, DataError: as ``predict``; or the best temperature lies at the end of
            the range, so that these rows have none.
    """
    fits = fits_of(results, at)
    check_numbers(draws, 1.0, seed)
    families, y = components(fits, rows, draws, batch_size, seed)
    shares = torch.full((len(fits),), 1 / len(fits), dtype=torch.double)

    def nll(log_temperature: float) -> float:
        tempered = [family.tempered(math.exp(log_temperature)) for family in families]
        return -float(Prediction.of(tempered, shares).log_prob(y).mean())

    found = minimize_scalar(nll, bounds=(math.log(LOWEST), math.log(HIGHEST)), method="bounded")
    best = math.exp(float(found.x))
    if not 1.01 * LOWEST < best < HIGHEST / 1.01:
        raise PosteriorError(
            f"The best temperature for these {len(y)} rows is {best:.3g}, at the end of what is looked "
            "through: the predictions are all right or say nothing. Give more rows, that no fit has seen."
        )
    return best
