"""Checks and shapes that several likelihoods share."""

from __future__ import annotations

from torch import Tensor


def as_columns(targets: Tensor) -> Tensor:
    """(batch,) as (batch, 1); anything else as it is."""
    return targets.unsqueeze(-1) if targets.dim() == 1 else targets


def log_shares(shares: Tensor, like: Tensor) -> Tensor:
    """(members, 1, ...), logarithms of shares (members,), to add to values of (members, ...)."""
    return shares.log().reshape(-1, *(1,) * (like.ndim - 1))


def output_problems(outputs: Tensor) -> list[str]:
    """Why outputs cannot be a network's for some rows; empty if they can.

    Args:
        outputs: (..., batch, columns), what the network returns.
    """
    found = []
    if outputs.dim() < 2:
        found.append(
            f"outputs have shape {tuple(outputs.shape)}, and need (batch, columns): end the network in a "
            "Linear layer and leave out squeeze()."
        )
    if not outputs.is_floating_point():
        found.append(f"outputs have type {outputs.dtype}, and must be real.")
    return found


def row_problems(outputs: Tensor, targets: Tensor) -> list[str]:
    """Why outputs and targets are not of the same rows; empty if they are.

    Args:
        outputs: (..., batch, columns), what the network returns.
        targets: (batch, ...), as the data set holds them.
    """
    if outputs.dim() < 2 or targets.dim() < 1 or len(targets) in (outputs.shape[-2], outputs.shape[0]):
        return []  # of maps, (batch, channels, height, width), the rows stand first
    return [
        f"outputs have {outputs.shape[-2]} rows and targets {targets.shape[0]}: pass those of the same rows."
    ]


def column_problems(outputs: Tensor, targets: Tensor) -> list[str]:
    """Why outputs and targets do not have the same rows and columns; empty if they have.

    Args:
        outputs: (..., batch, columns), what the network returns.
        targets: (batch,) or (batch, columns), as the data set holds them.
    """
    if targets.dim() not in (1, 2):
        return [f"targets have shape {tuple(targets.shape)}, and must be (batch,) or (batch, columns)."]
    found = row_problems(outputs, targets)
    columns = as_columns(targets).shape[-1]
    if outputs.dim() >= 2 and outputs.shape[-1] != columns:
        found.append(
            f"outputs have {outputs.shape[-1]} columns and targets {columns}: the last layer needs as many."
        )
    return found
