"""compare(): priors, or any fits of the same rows, by leave-one-out, held-out rows, ELBO and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bayesprune.errors import PosteriorError
from bayesprune.gated import GatedModel
from bayesprune.gated.rows import outputs_on
from bayesprune.posterior.comparison import By, Compared, Comparison
from bayesprune.posterior.diagnose.apart import told_apart
from bayesprune.posterior.loo import loo_of, why_no_loo
from bayesprune.posterior.rows import check_rows
from bayesprune.posterior.value import Posterior
from bayesprune.posterior.weighed import all_training_rows, weighed
from bayesprune.ranges import check_seed, is_whole
from bayesprune.rows import Source
from bayesprune.svi.result import FitResult


def compare(
    results: Mapping[str, FitResult | GatedModel] | Sequence[FitResult | GatedModel],
    rows: Source,
    held_out: Source | None = None,
    *,
    draws: int = 1000,
    at: str = "end",
    by: By | None = None,
    seed: int = 0,
) -> Comparison:
    r"""Compare priors, or any fits of the same rows, in one table.

    For each fit: :math:`\mathrm{elpd}_{\mathrm{loo}} = \sum_i \log p(y_i \mid y_{-i})` by PSIS with the
    correction for draws of a guide (``bp.posterior.loo``), the difference from the best one with a standard
    error from row-by-row differences, p_loo, how many k̂ are above ArviZ's limit; the log-likelihood of
    held-out rows; the ELBO; units kept and multiply-accumulates. Below the table stands what it conditions
    on. Networks may differ; targets have to be the same.

    Args:
        results: name → what ``fit`` returned, or a gated model; or a list, named ``fit 0``, ``fit 1``, ….
        rows: (inputs, targets), all training rows.
        held_out: (inputs, targets) that no fit has seen.
        draws: of each guide; a forward pass over the rows for each (for each distinct mask where weights are
            points).
        at: ``"end"``, or ``"decision"`` for gates and weights as they were before gates were decided.
        by: ``"elpd_loo"`` or ``"held_out"``. By default the first, unless held-out rows are given and some
            fit's elpd_loo is missing, optimistic or of a bad k̂.
        seed: of the draws.

    Returns:
        The fits, the best first.

    Raises:
        PosteriorError: no fits, likelihoods of different kinds of targets, other rows than they were fitted
            to, a number out of range, or ``by="held_out"`` without rows.
        DataError: rows that were not trained on, or held-out ones that were, or that do not fit.

    Source:
        Magnusson, Andersen, Jonasson & Vehtari (2019), arXiv 1904.10679 (correction); Sivula, Magnusson,
        Matamoros & Vehtari, arXiv 2008.10296 (when standard errors of differences say too little).

    Example:
        >>> import torch, bayesprune as bp
        >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        >>> def gated(price):
        ...     network = torch.nn.Sequential(torch.nn.Linear(3, 1))
        ...     prior = bp.priors.BernoulliGates(bp.priors.Flattening(price))
        ...     return bp.gate(network, x[:1], prior=prior, likelihood=bp.Gaussian(rows=200, scale=1.0))
        >>> found = compare({"cheap": gated(1.0), "dear": gated(9.0)}, (x, x[:, :1]), draws=200)
        >>> len(found), found.by, found["dear"].units
        (2, 'elpd_loo', 3)
    """
    named = _named(results)
    if not is_whole(draws) or draws < 1:
        raise PosteriorError(f"draws={draws!r} must be a whole number, at least 1.")
    check_seed(seed, PosteriorError)
    if by not in (None, "elpd_loo", "held_out"):
        raise PosteriorError(f"by={by!r} must be 'elpd_loo' or 'held_out', or left out.")
    if by == "held_out" and held_out is None:
        raise PosteriorError("by='held_out' compares by held_out=(inputs, targets), and there are none.")
    posteriors = {name: Posterior.of(fit, at) for name, fit in named.items()}
    _check_targets(posteriors, rows)
    fits = [_compared(name, each, rows, held_out, draws, seed) for name, each in posteriors.items()]
    chosen, why = _by(fits, by, held_out is not None)

    def rank(fit: Compared) -> float:
        scores = fit.scores(chosen)
        return np.inf if scores is None else -float(scores.sum())

    return Comparison(tuple(sorted(fits, key=rank)), chosen, why)


# ---- parts


def _named(results: Any) -> dict[str, FitResult | GatedModel]:
    if isinstance(results, FitResult | GatedModel):
        results = [results]
    if not isinstance(results, Mapping):
        results = {f"fit {n}": fit for n, fit in enumerate(results)} if isinstance(results, Sequence) else {}
    wrong = [str(name) for name, fit in results.items() if not isinstance(fit, FitResult | GatedModel)]
    if wrong or not results:
        raise PosteriorError(
            f"compare takes name → result of fit(), or a list of them, and got {', '.join(wrong) or 'none'}."
        )
    return {str(name): fit for name, fit in results.items()}


def _compared(
    name: str, posterior: Posterior, rows: Source, held_out: Source | None, draws: int, seed: int
) -> Compared:
    (fit,) = posterior.fits
    gated = fit.gated
    pair = all_training_rows(gated, rows, "compare")
    others = None if held_out is None else check_rows(gated, held_out)
    told_apart(posterior.fits, pair, others)
    drawn, missing = weighed(posterior, pair, draws, seed), why_no_loo(gated)
    predicted = None
    if others is not None:
        scored = posterior.chain(0, draws, 1, seed, False, others).rows
        assert scored is not None and scored.log_likelihood is not None
        nats = scored.log_likelihood.astype(np.float64)
        predicted = np.asarray(np.logaddexp.reduce(nats, axis=0) - np.log(len(nats)))
    return Compared(
        name, None if missing else loo_of(drawn), missing, predicted, float(drawn.elbo.mean()),
        float(drawn.elbo.std() / np.sqrt(len(drawn.elbo))), float(drawn.gates.double().sum(1).mean()),
        len(gated.alive), 100 * float(drawn.macs.mean()) / gated.dense_macs,
    )  # fmt: skip


def _by(fits: Sequence[Compared], asked: By | None, held: bool) -> tuple[By, str]:
    """What to compare by, and why."""
    if asked is not None:
        return asked, "as asked"
    reasons = {
        "is missing": [fit.name for fit in fits if fit.loo is None],
        "is optimistic": [fit.name for fit in fits if fit.loo is not None and fit.loo.optimistic],
        "has a bad k̂": [fit.name for fit in fits if fit.loo is not None and fit.loo.bad],
    }
    against = next(((what, names) for what, names in reasons.items() if names), None)
    if against is None:
        return "elpd_loo", "which no fit's points and no bad k̂ speak against"
    said = f"elpd_loo of {', '.join(against[1])} {against[0]}"
    if held:
        return "held_out", f"since {said}"
    return "elpd_loo", f"though {said}: give held_out= rows"


def _check_targets(posteriors: Mapping[str, Posterior], rows: Source) -> None:
    """Densities of real targets and probabilities of discrete ones cannot be compared."""
    kinds = {}
    for name, posterior in posteriors.items():
        gated = posterior.fits[0].gated
        first = check_rows(gated, rows)[0][:1].to(gated.log_odds.device)
        found = gated.likelihood(outputs_on(gated.network, first, "rows"))
        kinds[name] = getattr(getattr(found, "support", None), "is_discrete", None)
    if {True, False} <= set(kinds.values()):
        said = ", ".join(f"{name} has {'probabilities' if d else 'densities'}" for name, d in kinds.items())
        raise PosteriorError(
            f"compare: log-likelihoods mean different things, and have no difference: {said}."
        )
