"""Before a fit: outputs are put into the targets' own unit, and scales start from the targets."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bayesprune.errors import UnitWarning
from bayesprune.gated import GatedModel
from bayesprune.gated.rows import outputs_on
from bayesprune.likelihoods import Bernoulli, Categorical, Frame, Likelihood, ModelLoss, Poisson
from bayesprune.rows import Inputs, Pair, joined
from bayesprune.structure.frame import find_head
from bayesprune.structure.graph import GraphNetwork
from bayesprune.svi.batches import Batches, untouched

ROWS = 1_000
"""Rows on which is looked what the network says before it has learnt."""

FEW = 8
"""Rows that it is looked on at the least, where there are as many."""

FAR = 10.0
"""Targets whose standard deviation is this many times above or below 1, or whose mean is as many units from
0, are far from what a network's last layer says to begin with."""


@torch.no_grad()
def start_in_own_unit_(
    gated: GatedModel, batches: Batches, copies: Sequence[GatedModel | GraphNetwork] = ()
) -> None:
    """Give a network's outputs the frame that its likelihood asks for, and start what the likelihood follows.

    A network that says something of the targets goes on saying it; the last layer of any other is read as
    standard deviations from the mean.

    Args:
        gated: the model of the training, on its device; changed in place.
        batches: of the training rows.
        copies: of the model or its network, averaged elsewhere; they begin alike.

    Warns:
        UnitWarning: the targets are far from mean 0 and standard deviation 1, and the network's last layer
            does not take that up; or their columns are in units far from each other.
    """
    likelihood, device = gated.likelihood, gated.log_odds.device
    if isinstance(likelihood.plain, Categorical | Bernoulli | ModelLoss):
        return
    x, y = _first(batches)
    x, y = x.to(device), y.to(device)
    all_targets = _targets(batches).to(device) if likelihood.asks_for_targets else y
    frame = likelihood.frame(all_targets)
    if likelihood.asks_for_targets and likelihood.followed():
        _warn_of_columns(likelihood, all_targets)
    if gated.network.frame is None and not _framed_(gated, frame, x, y, copies):
        _warn_of(likelihood, all_targets, frame is not None)
    likelihood.start_(outputs_on(gated.network, x, "train"), y, all_targets)
    for copy in copies:
        if isinstance(copy, GatedModel):
            for learnt, known in zip(copy.likelihood.parameters(), likelihood.parameters(), strict=True):
                learnt.copy_(known)


def _framed_(
    gated: GatedModel,
    frame: Frame | None,
    x: Inputs,
    y: Tensor,
    copies: Sequence[GatedModel | GraphNetwork],
) -> bool:
    """Put the frame around network and copies, where there is one and a last layer for it."""
    head = find_head(gated.network, x[:FEW]) if frame is not None and len(x) > 1 else None
    if frame is None or head is None:
        return False
    keep = gated.likelihood.explains(outputs_on(gated.network, x, "train"), y)
    location = frame.location if head.bias is not None else torch.zeros_like(frame.location)
    for copy in (gated, *copies):
        network = copy.network if isinstance(copy, GatedModel) else copy
        if network.frame is None:
            network.frame_(head, location, frame.unit, keep=keep)
    return head.bias is not None or bool((frame.location.abs() <= FAR * frame.unit).all())


def _first(batches: Batches) -> Pair:
    """(rows, ...) each, the first rows of a pass: enough to look at, however small the batches are."""
    xs, ys, seen = [], [], 0
    for x, y in _passed(batches):
        xs.append(x)
        ys.append(y)
        seen += len(x)
        if seen >= FEW:
            break
    return joined(xs)[:ROWS], torch.cat(ys)[:ROWS]


def _targets(batches: Batches) -> Tensor:
    """(rows, ...), the targets of a whole pass."""
    if batches.targets is not None:
        return batches.targets
    found, seen = [], 0
    for _, y in _passed(batches):
        found.append(y)
        seen += len(y)
        if seen >= batches.rows:  # a stream may have no end
            break
    return torch.cat(found)


def _passed(batches: Batches) -> Iterator[Pair]:
    """One pass over the rows; a loader's own randomness is afterwards as if there had been none."""
    with untouched(batches):
        yield from batches.source.batches(ROWS)


def _warn_of_columns(likelihood: Likelihood, targets: Tensor) -> None:
    """Say that columns in units of their own share one noise scale: that of the largest."""
    deviations = targets.reshape(len(targets), -1).double().std(0, correction=0)
    least, most = float(deviations[deviations > 0].min()), float(deviations.max())
    if most > FAR * least:
        warnings.warn(
            f"{type(likelihood).__name__}: the standard deviations of the targets' columns run from "
            f"{least:.3g} to {most:.3g}, and one noise scale is learnt for all: the small ones hardly count. "
            "Standardise each column, (y - y.mean(0)) / y.std(0), and scale predictions back.",
            UnitWarning,
            stacklevel=2,
        )


def _warn_of(likelihood: Likelihood, targets: Tensor, asked: bool) -> None:
    """Say that targets are far from what the last layer begins with, and what to do."""
    columns = targets.reshape(len(targets), -1).double()
    if not targets.is_floating_point() and not isinstance(likelihood.plain, Poisson):
        return
    if isinstance(likelihood.plain, Poisson):
        columns = columns.mean(0, keepdim=True).log()
    deviation, mean = float(columns.std(0, correction=0).max()), float(columns.mean(0).abs().max())
    near = (deviation == 0 or 1 / FAR <= deviation <= FAR) and mean <= FAR
    if near:
        return
    why = "the network's outputs are not linear in a last layer" if asked else "it is taken as it is"
    other = "end the network in a Linear layer" if asked else "take Gaussian(rows), which does it by itself"
    warnings.warn(
        f"{type(likelihood).__name__}: the targets have standard deviation {deviation:.3g} and means up to "
        f"{mean:.3g}, and {why}: learning rates and the prior of the weights are then those of another unit. "
        f"Standardise the targets, (y - y.mean(0)) / y.std(), and scale predictions back; or {other}.",
        UnitWarning,
        stacklevel=2,
    )
