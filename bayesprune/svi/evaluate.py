"""How good a network is on rows it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bayesprune.errors import LikelihoodError, UnsupportedNetworkError
from bayesprune.gated import GatedModel
from bayesprune.gated.rows import check_targets, running
from bayesprune.likelihoods import Likelihood
from bayesprune.rows import Form, Inputs, Rows, rows_from, run
from bayesprune.structure.running import evaluating
from bayesprune.svi.batches import Train
from bayesprune.svi.result import FitResult
from bayesprune.svi.threads import threads_for, using_threads

USUAL = 1000
"""Rows at a time where nothing is said of them."""


@dataclass(frozen=True)
class Quality:
    """Means over rows.

    Attributes:
        score: the likelihood's score: an error in percent for classes, RMSE for real targets.
        name: what the score is.
        nll: mean negative log-likelihood of a row, nats.
    """

    score: float
    name: str
    nll: float


def evaluate(
    network: GatedModel | FitResult | nn.Module,
    rows: Train,
    likelihood: Likelihood | None = None,
    batch_size: int | None = None,
) -> Quality:
    """Score a network, or a gated model with every gate at the nearer vertex, as ``prune`` has it.

    Args:
        network: what ``fit`` returned, a gated model, or a plain network together with its likelihood.
        rows: as ``fit`` takes them.
        likelihood: needed for a plain network: the one that was learnt with it, ``result.likelihood``.
        batch_size: rows at a time, 1000 by default; a DataLoader has its own.

    Returns:
        Means over the rows.

    Raises:
        DataError: no rows, rows that are not finite, or that the network does not run on.
        LikelihoodError: a plain network without a likelihood, or with one whose parameters no fit has learnt;
            or targets that it cannot score.
        UnsupportedNetworkError: ``network`` is none.
    """
    network = network.gated if isinstance(network, FitResult) else network
    if isinstance(network, GatedModel):
        found = rows_from(rows, "rows", form=network.form, batch_size=batch_size or USUAL)
        return quality(network, found, network.likelihood, batch_size)
    if not isinstance(network, nn.Module):
        raise UnsupportedNetworkError(
            f"evaluate takes a fit's result, a gated model or a network, and got a {type(network).__name__}."
        )
    if not isinstance(likelihood, Likelihood):
        raise LikelihoodError(
            f"evaluate(network, rows, likelihood): a plain network needs its likelihood, and got "
            f"{likelihood!r}: give what was learnt with it, evaluate(small, rows, result.likelihood)."
        )
    _check_learnt(likelihood)
    form = Form(target=likelihood.target, among=not likelihood.by_row)
    found = rows_from(rows, "rows", form=form, batch_size=batch_size or USUAL)
    return quality(network, found, likelihood, batch_size)


def quality(
    network: GatedModel | nn.Module,
    rows: Rows,
    likelihood: Likelihood | None = None,
    batch: int | None = None,
) -> Quality:
    """``evaluate`` for rows that have been found.

    Args:
        network: a gated model or a plain network.
        rows: any.
        likelihood: by default the gated model's.
        batch: rows at a time.
    """
    gates: dict[str, Tensor] | None = None
    size, threads = rows.batch_size_of(batch, USUAL), torch.get_num_threads()
    if isinstance(network, GatedModel):
        likelihood, gates = likelihood or network.likelihood, network.vertex()
        threads = threads_for(network.dense_macs, size, learns=False)
    assert likelihood is not None
    parameter = next(network.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    score, nll, count = 0.0, 0.0, 0
    with using_threads(threads), evaluating(network):
        for x, y in rows.batches(size, device):
            outputs = running(lambda x=x: _outputs(network, x, gates, likelihood), x, rows.place)  # type: ignore[misc]
            check_targets(likelihood, outputs, y, rows.place)
            score += float(likelihood.score(outputs, y))
            nll += float(likelihood.nll(outputs, y).sum())
            count += len(x)
    return Quality(likelihood.mean_score(score, count), likelihood.score_name, nll / count)


def _outputs(
    network: GatedModel | nn.Module, x: Inputs, gates: dict[str, Tensor] | None, likelihood: Likelihood
) -> Any:
    if isinstance(network, GatedModel):
        return network.network(x, gates)
    return likelihood.part(run(network, x), len(x))


def _check_learnt(likelihood: Likelihood) -> None:
    """``fit`` learns on a copy: the likelihood that ``gate`` was given still is what it started from."""
    guesses = likelihood.guesses()
    if guesses:
        raise LikelihoodError(
            f"{type(likelihood).__name__}: no fit has learnt {', '.join(guesses)} of this likelihood, since "
            "fit learns on a copy. Pass what was learnt, evaluate(small, rows, result.likelihood); or, where "
            "its values are meant as they are, call likelihood.requires_grad_(False)."
        )
