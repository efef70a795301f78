"""What draws of a guide say about given rows: predictions, log-likelihoods and scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesprune.errors import DataError, LikelihoodError
from bayesprune.gated import GatedModel
from bayesprune.gated.dead import median_units
from bayesprune.gated.rows import check_targets, outputs_on
from bayesprune.likelihoods import Bernoulli, Categorical, Likelihood
from bayesprune.rows import Inputs, Pair, rows_from

Rows = Pair
Asked = tuple[Inputs, Tensor | None]
"""Inputs (rows, ...), and their targets where there are any."""


@dataclass(frozen=True)
class RowScores:
    """Rows under every draw.

    Attributes:
        log_likelihood: (draws, rows), float32, nats; None without targets.
        learnt_from: (draws,), nats of all rows as the fit counts them: log_likelihood's, but for what a
            teacher adds; None without targets.
        predictive: (draws, rows, ...), targets drawn from the likelihood.
        score: (draws,), the likelihood's score: an error in percent, RMSE, or a deviance; None without
            targets.
        mean: (rows, ...), class probabilities, or the mean target, averaged over draws; None where the
            likelihood has neither.
        hard_mean: the same under the hard mask (gates at the nearer vertex, weights at their means).
        hard_score: score of the hard mask; None without targets.
    """

    log_likelihood: np.ndarray[Any, Any] | None
    learnt_from: np.ndarray[Any, Any] | None
    predictive: np.ndarray[Any, Any]
    score: np.ndarray[Any, Any] | None
    mean: np.ndarray[Any, Any] | None
    hard_mean: np.ndarray[Any, Any] | None
    hard_score: float | None


def check_asked(gated: GatedModel, rows: Any) -> Asked:
    """Rows in memory, (inputs, targets), after a look whether the model can be asked about them.

    Args:
        gated: the model.
        rows: as ``fit`` takes them; or inputs alone, of which there are predictions and no nats.

    Raises:
        DataError: they are no rows, not whole, or not like those that the network was gated on.
        LikelihoodError: targets that the likelihood cannot score, or nats that it has of a batch alone.
    """
    if not gated.likelihood.by_row:
        raise LikelihoodError(
            f"rows: {type(gated.likelihood).__name__} has the mean loss of a batch, and what is asked here "
            "are nats of each row: gate the network with a likelihood of its outputs, such as "
            "bp.Categorical(rows=…, output='logits')."
        )
    x, y = rows_from(rows, "rows", targets=False, form=gated.form).tensors()
    device = gated.log_odds.device
    outputs = outputs_on(gated.network, x[:2].to(device), "rows")
    if y is not None:
        check_targets(gated.likelihood, outputs, y.to(device), "rows")
    return x, y


def check_rows(gated: GatedModel, rows: Any) -> Rows:
    """The same of rows that must have targets.

    Raises:
        DataError: they have none; else as ``check_asked``.
        LikelihoodError: as ``check_asked``.
    """
    x, y = check_asked(gated, rows)
    if y is None:
        raise DataError("rows: inputs alone, and rows are pairs (inputs, targets). Give (x, y).")
    return x, y


def distinct(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of a matrix without repetition: most draws of a decided guide are the same mask.

    Args:
        masks: (draws, units), zeros and ones.

    Returns:
        (distinct, units), and (draws,) which of them each draw is.
    """
    packed = np.ascontiguousarray(np.packbits(masks.cpu().numpy().astype(bool), axis=1))
    _, first, which = np.unique(
        packed.view([("", packed.dtype, (packed.shape[1],))]).reshape(-1) if packed.shape[1] else packed,
        return_index=True,
        return_inverse=True,
        axis=0,
    )
    return masks[torch.from_numpy(first)], torch.from_numpy(which.reshape(-1))


def outputs_of(
    gated: GatedModel, x: Inputs, mask: Tensor, weights: dict[str, Tensor] | None = None
) -> Tensor:
    """(rows, outputs) under one mask of all units, on the CPU."""
    gates = gated.by_group(mask.to(gated.log_odds))
    return gated.outputs(x.to(gated.log_odds.device), gates, weights)


class _Scored:
    """What each draw says of targets: nats and scores.

    Args:
        likelihood: of the targets.
        x: (rows, ...), inputs.
        y: (rows, ...), targets.
        draws: how many there will be.
    """

    def __init__(self, likelihood: Likelihood, x: Inputs, y: Tensor, draws: int) -> None:
        self.likelihood, self.y = likelihood, y
        self.taught = likelihood.taught(x, y)
        self.log_likelihood = np.empty((draws, len(x)), np.float32)
        self.learnt_from, self.score = np.empty(draws), np.empty(draws)

    def add(self, outputs: Tensor, at: np.ndarray[Any, Any]) -> None:
        """Take the outputs (rows, outputs) of the draws of these numbers."""
        self.log_likelihood[at] = -self.likelihood.nll(outputs, self.y).cpu().numpy()
        self.learnt_from[at] = self.log_likelihood[at[0]].sum(dtype=np.float64)
        if self.taught is not self.y:
            self.learnt_from[at] = -float(self.likelihood.nll(outputs, self.taught).double().sum())
        self.score[at] = self.of(outputs)

    def of(self, outputs: Tensor) -> float:
        """The likelihood's score of outputs (rows, outputs)."""
        return self.likelihood.mean_score(float(self.likelihood.score(outputs, self.y)), len(self.y))


class RowScorer:
    """Collects what each draw says about some rows.

    Args:
        gated: the model.
        rows: (inputs, targets).
        draws: how many there will be.
    """

    def __init__(self, gated: GatedModel, rows: Asked, draws: int) -> None:
        self.gated, self.likelihood = gated, gated.likelihood
        self.x, self.draws = rows[0].to(gated.log_odds.device), draws
        self.scored: _Scored | None = None
        if rows[1] is not None:
            self.scored = _Scored(self.likelihood, self.x, rows[1].to(gated.log_odds.device), draws)
        self.predictive: np.ndarray[Any, Any] | None = None
        self.total: Tensor | None = None

    def add(self, outputs: Tensor, places: Tensor) -> None:
        """Take the outputs (rows, outputs) of one mask, for all draws that it is: (count,) numbers."""
        at, count = places.numpy(), len(places)
        if self.scored is not None:
            self.scored.add(outputs, at)
        drawn = self.likelihood(outputs).sample(torch.Size([count])).cpu().numpy()
        if self.predictive is None:
            kind = np.int16 if isinstance(self.likelihood.plain, Categorical) else np.float32
            self.predictive = np.empty((self.draws, *drawn.shape[1:]), kind)
        self.predictive[at] = drawn
        mean = self._mean(outputs)
        if mean is not None:
            self.total = mean * count if self.total is None else self.total + mean * count

    def result(self) -> RowScores:
        """Everything collected, with the hard mask beside it."""
        hard = outputs_of(self.gated, self.x, median_units(self.gated))
        hard_mean = self._mean(hard)
        mean = None if self.total is None else (self.total / self.draws).cpu().numpy()
        assert self.predictive is not None
        scored = self.scored
        return RowScores(
            log_likelihood=None if scored is None else scored.log_likelihood,
            learnt_from=None if scored is None else scored.learnt_from,
            predictive=self.predictive,
            score=None if scored is None else scored.score,
            mean=mean,
            hard_mean=None if hard_mean is None else hard_mean.cpu().numpy(),
            hard_score=None if scored is None else scored.of(hard),
        )

    def _mean(self, outputs: Tensor) -> Tensor | None:
        if isinstance(self.likelihood.plain, Categorical):
            return outputs.softmax(-1)
        if isinstance(self.likelihood.plain, Bernoulli):
            return outputs.sigmoid()
        mean = getattr(self.likelihood(outputs), "mean", None)
        return mean if isinstance(mean, Tensor) and bool(mean.isfinite().all()) else None
