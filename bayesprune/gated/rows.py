"""Rows against a model: whether its network runs on them, and whether its likelihood can score them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bayesprune.errors import DataError, LikelihoodError
from bayesprune.likelihoods import Likelihood
from bayesprune.rows import Inputs
from bayesprune.rows.checks import rows_of_block
from bayesprune.structure.running import evaluating


def outputs_on(network: nn.Module, x: Inputs, place: str) -> Tensor:
    """(rows, ...), what a network returns for some rows in evaluation, without a gradient.

    Args:
        network: left in the modes that it was in.
        x: (rows, ...), inputs on the network's device.
        place: of the rows, for messages.

    Raises:
        DataError: the network does not run on them, or returns no tensor of as many rows.
    """
    with evaluating(network):
        return running(lambda: network(x), x, place)


def running(call: Callable[[], Any], x: Inputs, place: str) -> Tensor:
    """What a network returns; its refusal of the rows is told as one.

    Args:
        call: runs the network.
        x: (rows, ...), inputs.
        place: of the rows, for messages.

    Raises:
        DataError: it does not run, or returns no tensor of as many rows.
    """
    try:
        outputs = call()
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as problem:
        reason = str(problem).partition("\n")[0].rstrip(".")
        raise DataError(
            f"{place}: the network does not run on {len(x)} rows of {told(x)}: {reason}. Give rows like "
            "those that it was made for."
        ) from problem
    if not isinstance(outputs, Tensor) or not outputs.ndim or len(outputs) != len(x):
        found = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise DataError(
            f"{place}: for {len(x)} rows the network returned {found}: it must return a tensor whose first "
            "dimension is the rows."
        )
    return outputs


def told(x: Inputs) -> str:
    """Shape and type of rows, for messages."""
    if isinstance(x, Tensor):
        return f"shape {tuple(x.shape[1:])} and type {x.dtype}"
    return x.told()


def check_targets(likelihood: Likelihood, outputs: Tensor, y: Tensor, place: str) -> None:
    """A likelihood must be able to score all targets; they are looked at block by block.

    Args:
        likelihood: of the model.
        outputs: (1 or more, ...), what the network returns for some rows.
        y: (rows, ...), all targets.
        place: of the rows, for messages.

    Raises:
        LikelihoodError: it is not; place, value and remedy of everything that does not fit.
    """
    for block in y.split(rows_of_block(y)):
        if _problems(likelihood, outputs, block):
            problems = _problems(likelihood, outputs, y)  # what is said is of all targets
            raise LikelihoodError(f"{place}: {type(likelihood).__name__}: {' '.join(problems)}")


def _problems(likelihood: Likelihood, outputs: Tensor, y: Tensor) -> list[str]:
    with torch.no_grad():
        return likelihood.problems(outputs[:1].expand(len(y), *outputs.shape[1:]), y)
