"""What a run leaves of error against cost: how far its network could be cut as it is."""

from __future__ import annotations

from pathlib import Path

import torch

from bayesprune.cli.streams import complain
from bayesprune.data import Split
from bayesprune.errors import BayespruneError
from bayesprune.svi import FitResult

ROWS, HELD_OUT = 500, 1000
"""Of the training rows, for evidence and re-weighting; and of the test rows, for errors."""
SHARES, DRAWS = (1.0, 0.7, 0.5, 0.3, 0.2), 8
"""Of the cost of the network as it was left; and draws of masks and rows at each."""
MOST_MACS = 200_000
"""Of what is left of the network, a row: beyond, the front would take long; ``bp.pareto`` makes it."""
LEAST_LEARNT = 30_000
"""Rows, epochs together: a run that learns from fewer is a trial, and shorter than the front would take."""


def write_front_of(result: FitResult, train: Split, test: Split, folder: Path) -> None:
    """Write error against cost from one fit into a run's folder, where that takes seconds.

    Where it cannot be had, a run that took hours is not lost for it: what is missing is said on stderr.

    Args:
        result: of the fit.
        train: training rows; of many, 500 spread evenly over them stand for all.
        test: rows that it has not seen; the first thousand are predicted.
        folder: of the run or seed.
    """
    from bayesprune.selection.front import FRONT, write_front  # here: ArviZ takes long to import
    from bayesprune.selection.pareto import pareto

    left = result.gated.network.macs()
    if left > MOST_MACS or len(result.history) * len(train.x) < LEAST_LEARNT:
        return
    chosen = torch.linspace(0, len(train.x) - 1, min(ROWS, len(train.x))).round().long()
    rows, held = (train.x[chosen], train.y[chosen]), (test.x[:HELD_OUT], test.y[:HELD_OUT])
    dense = result.gated.dense_macs * (1 + 1e-9)  # what is left is no more than itself, rounding or not
    budgets = [share * left / dense for share in possible(result)]
    try:
        write_front(pareto(result, rows, held, budgets=budgets, draws=DRAWS), folder / FRONT)
    except BayespruneError as problem:
        complain(f"Warning: no {FRONT} was written. {problem}")


def possible(result: FitResult) -> list[float]:
    """Shares of what is left that are no less than one unit in every group."""
    from bayesprune.structure import ExpectedCost
    from bayesprune.structure.minimal import minimal_masks

    gated = result.gated
    smallest = {
        name: mask.double() * gated.by_group(gated.alive.cpu())[name]
        for name, mask in minimal_masks(gated.network).items()
    }
    least = float(ExpectedCost(gated.network)(smallest).macs) / gated.network.macs()
    return [share for share in SHARES if share >= least]
