"""predict(): the posterior predictive of one fit, or of several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from bayesprune.errors import DataError, PosteriorError
from bayesprune.gated import GatedModel
from bayesprune.gated.predictive import members_of
from bayesprune.gated.rows import running
from bayesprune.prediction.families import Family, family_of
from bayesprune.prediction.prediction import Prediction
from bayesprune.prediction.shares import by_elbo, stacked
from bayesprune.ranges import SEEDS, check_seed, is_whole
from bayesprune.rows import Rows, Source, rows_from
from bayesprune.structure.copying import copy_of
from bayesprune.structure.running import evaluating
from bayesprune.svi.result import FitResult
from bayesprune.svi.threads import threads_for, using_threads

USUAL = 1000
"""Rows at a time where nothing is said of them."""
APART = 7919
"""Between the seeds of one fit and of the next."""
WEIGHTS = ("equal", "elbo", "stacking")
Fit = FitResult | GatedModel


def predict(
    results: Fit | Sequence[Fit],
    x: Source,
    *,
    draws: int = 100,
    weights: str | Sequence[float] = "equal",
    rows: Source | None = None,
    temperature: float = 1.0,
    at: str = "end",
    batch_size: int | None = None,
    seed: int = 0,
) -> Prediction:
    r"""The posterior predictive: what targets may be, averaged over masks, weights and fits.

    With draws :math:`(z, w)` of the guide of fit k, and weights :math:`\omega_k` of the fits,

    .. math:: p(y \mid x) = \sum_k \omega_k \frac{1}{S} \sum_{s=1}^S p(y \mid x, z_{ks}, w_{ks}).

    A fit whose gates were decided, with weights that are points, is one network: then nothing is averaged,
    and the epistemic part is zero, which is no knowledge but an omission. Weights have a posterior under
    ``Recipe(compact_weights="normal")``, masks under ``fit(decide=False)`` or ``at="decision"``, and several
    fits differ in both.

    Args:
        results: what ``fit`` returned, or a gated model; or several, of the same likelihood.
        x: (rows, ...), inputs in any form that ``fit`` takes; targets beside them are not looked at.
        draws: of each fit. Equal masks are run once where weights are points.
        weights: of the fits: ``"equal"``; ``"elbo"``, in proportion to exp(ELBO), which all but chooses the
            best fit; ``"stacking"``, those that predict ``rows`` best together (Yao et al. 2018, arXiv
            1704.02030); or numbers.
        rows: (inputs, targets) that no fit has seen, for stacking.
        temperature: T > 0: :math:`p(y \mid x, z, w)^{1/T}`, normalised, is averaged in its place: logits over
            T for classes and labels, and T σ² for Gaussian noise. ``bp.temperature`` fits one.
        at: ``"end"``; or ``"decision"``, gates and weights as they were before gates were decided.
        batch_size: rows at a time, 1000 by default; a DataLoader has its own.
        seed: of the draws.

    Returns:
        The prediction, which holds rows · draws · outputs numbers for each fit.

    Raises:
        PosteriorError: none or something else than fits; a number out of range; fits of different likelihoods
            or inputs; weights that cannot be had.
        LikelihoodError: a likelihood that reads a batch's loss and no outputs, or has no temperature.
        DataError: inputs that the networks do not run on.

    Example:
        >>> import bayesprune as bp
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> prior = bp.priors.BernoulliGates(bp.priors.Flattening(price=5.0))
        >>> gated = bp.gate(network, torch.zeros(1, 4), prior=prior, likelihood=bp.Categorical(rows=100))
        >>> found = predict(gated, torch.randn(5, 4), draws=50)
        >>> found.mean.shape, bool((found.epistemic > 0).all())
        (torch.Size([5, 3]), True)
    """
    fits = fits_of(results, at)
    check_numbers(draws, temperature, seed)
    found = rows_from(x, "x", targets=False, form=_model(fits[0]).form, batch_size=batch_size or USUAL)
    families = [f.tempered(temperature) for f in _components(fits, found, draws, batch_size, seed)]
    shares = _shares(fits, weights, rows, draws, temperature, batch_size, seed)
    return Prediction.of(families, shares)


def fits_of(results: Any, at: str) -> list[Fit]:
    """One fit or several, as they were at their end or at the decision.

    Raises:
        PosteriorError: none, something else, or fits of different likelihoods or inputs.
    """
    given = list(results) if isinstance(results, tuple | list) else [results]
    wrong = [type(r).__name__ for r in given if not isinstance(r, FitResult | GatedModel)]
    if wrong or not given:
        raise PosteriorError(
            f"predict takes the results of fit(), and got {', '.join(wrong) or 'none'}. A pruned network "
            "predicts by itself, network(x), without its uncertainty."
        )
    if at not in ("end", "decision"):
        raise PosteriorError(f"at={at!r} must be 'end' or 'decision'.")
    fits: list[Fit] = [fit if at == "end" else _at_decision(fit, n) for n, fit in enumerate(given)]
    first = _model(fits[0])
    for number, fit in enumerate(fits[1:], start=1):
        kinds = [type(m.likelihood.plain).__name__ for m in (first, _model(fit))]
        if kinds[0] != kinds[1]:
            raise PosteriorError(
                f"Fit {number} has the likelihood {kinds[1]} and fit 0 {kinds[0]}: their predictions "
                "cannot be averaged."
            )
    return fits


def check_numbers(draws: Any, temperature: Any, seed: Any) -> None:
    """Every number must be in range.

    Raises:
        PosteriorError: one is not.
    """
    if not is_whole(draws) or draws < 1:
        raise PosteriorError(f"draws={draws!r} must be a whole number, at least 1.")
    real = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not real or not 0 < temperature < math.inf:
        raise PosteriorError(f"temperature={temperature!r} must be a positive number.")
    check_seed(seed, PosteriorError)


def components(
    fits: Sequence[Fit], rows: Source, draws: int, batch_size: int | None, seed: int
) -> tuple[list[Family], Tensor]:
    """What each fit says of rows that have targets.

    Args:
        fits: one or more.
        rows: (inputs, targets).
        draws: of each fit.
        batch_size: rows at a time.
        seed: of the draws.

    Returns:
        A family of components for each fit, and the targets.

    Raises:
        PosteriorError: there are no targets.
    """
    model = _model(fits[0])
    x, y = rows_from(rows, "rows", form=model.form, batch_size=batch_size or USUAL).tensors()
    if y is None:
        raise PosteriorError("rows: inputs alone, and rows are pairs (inputs, targets). Give (x, y).")
    held, y = rows_from(x, "rows", targets=False, form=model.form), y.cpu()
    found = _components(fits, held, draws, batch_size, seed)
    problems = model.likelihood.plain.problems(found[0].example, y[: len(found[0].example)])
    if problems:
        raise PosteriorError(f"rows: {' '.join(problems)}")
    return found, y


# ---- parts


def _components(
    fits: Sequence[Fit], rows: Rows, draws: int, batch_size: int | None, seed: int
) -> list[Family]:
    """The distributions that the draws of each fit's guide give the rows; all in one pass."""
    models = [_model(fit) for fit in fits]
    families = [family_of(gated.likelihood.plain) for gated in models]
    members = [members_of(m, draws, (seed + APART * n) % SEEDS) for n, m in enumerate(models)]
    size = rows.batch_size_of(batch_size, USUAL)
    outputs: list[list[Tensor]] = [[] for _ in models]
    with torch.no_grad(), ExitStack() as stack:
        stack.enter_context(using_threads(threads_for(models[0].dense_macs, size, learns=False)))
        for gated in models:
            stack.enter_context(evaluating(gated))
        for x in rows.inputs(size):
            for gated, those, found in zip(models, members, outputs, strict=True):
                there = x.to(gated.log_odds.device)
                each = [running(lambda m=m, x=there: m.outputs(x), there, rows.place) for m in those]  # type: ignore[misc]
                found.append(torch.stack(each).cpu())  # (members, batch, ...)
    if not outputs[0]:
        raise DataError(f"{rows.place}: no rows.")
    return [
        family(
            _single(torch.cat(found, dim=1)),
            torch.tensor([member.share for member in those], dtype=torch.double),
            copy_of(gated.likelihood.plain).cpu(),
        )
        for family, found, those, gated in zip(families, outputs, members, models, strict=True)
    ]


def _single(outputs: Tensor) -> Tensor:
    return outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs


def _shares(
    fits: Sequence[Fit],
    weights: str | Sequence[float],
    rows: Source | None,
    draws: int,
    temperature: float,
    batch_size: int | None,
    seed: int,
) -> Tensor:
    """(fits,), weights that sum to one."""
    if rows is not None and weights != "stacking":
        raise PosteriorError(f"rows= are for weights='stacking', and weights={weights!r}: leave one out.")
    if not isinstance(weights, str):
        return _given(weights, len(fits))
    if weights not in WEIGHTS:
        raise PosteriorError(
            f"weights={weights!r} must be one of {', '.join(map(repr, WEIGHTS))}, or numbers."
        )
    if weights == "elbo":
        return by_elbo(fits)
    if weights == "equal":
        return torch.full((len(fits),), 1 / len(fits), dtype=torch.double)
    if rows is None:
        raise PosteriorError("weights='stacking' needs rows=(inputs, targets) that no fit has seen.")
    found, y = components(fits, rows, draws, batch_size, seed)
    alone = torch.ones(1, dtype=torch.double)
    scores = [Prediction.of([family.tempered(temperature)], alone).log_prob(y) for family in found]
    return stacked(torch.stack(scores))


def _given(weights: Any, fits: int) -> Tensor:
    try:
        found = torch.as_tensor(weights, dtype=torch.double)
    except (TypeError, ValueError, RuntimeError):
        found = torch.empty(0, dtype=torch.double)
    if found.shape != (fits,) or not bool((found >= 0).all()) or not 0 < float(found.sum()) < math.inf:
        raise PosteriorError(f"weights={weights!r} must be {fits} numbers, at least 0 and not all 0.")
    return found / found.sum()


def _model(fit: Fit) -> GatedModel:
    return fit.gated if isinstance(fit, FitResult) else fit


def _at_decision(fit: Fit, number: int) -> Fit:
    before = fit.at_decision if isinstance(fit, FitResult) else None
    if before is None:
        raise PosteriorError(
            f"at='decision': fit {number} has kept nothing of a decision. It had none, or an earlier version "
            "of bayesprune began it: take at='end'."
        )
    return before
