"""What a run leaves of price and evidence: which of the units that stayed pay for themselves."""

from __future__ import annotations

from pathlib import Path

import torch

from bayesprune.cli.streams import complain
from bayesprune.data import Split
from bayesprune.errors import PosteriorError
from bayesprune.svi import FitResult

ROWS = 5000
EXACTLY = 10


def write_gains(result: FitResult, train: Split, folder: Path) -> None:
    """Write every unit's price and gain, those nearest to the line exactly, into a run's folder.

    Where they cannot be had, a run that took hours is not lost for it: what is missing is said on stderr.

    Args:
        result: of the fit.
        train: training rows; of many, 5,000 spread evenly over them stand for all.
        folder: of the run or seed.
    """
    from bayesprune.posterior.evidence import EVIDENCE, evidence, write_evidence  # here: ArviZ takes long

    chosen = torch.linspace(0, len(train.x) - 1, min(ROWS, len(train.x))).round().long()
    rows = train.x[chosen], train.y[chosen]
    try:
        write_evidence(evidence(result, rows, units=EXACTLY, progress=False), folder / EVIDENCE)
    except PosteriorError as problem:
        complain(f"Warning: no {EVIDENCE} was written. {problem}")
