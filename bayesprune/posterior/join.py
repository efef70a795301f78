"""Draws of several fits, made one by one, as the chains of one posterior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayesprune.errors import PosteriorError
from bayesprune.posterior.arviz import Groups, unwrap, wrap


def join(containers: Sequence[Any]) -> Any:
    """Put the draws of independent fits of the same network side by side.

    Args:
        containers: as ``to_arviz`` or ``read`` give them.

    Returns:
        One container, its chains numbered anew. Groups that not all have are left out; the prior is the first
        one's; histories of different length are filled up with NaN.

    Raises:
        PosteriorError: none, other networks, or different numbers of draws.
    """
    parts = [unwrap(container) for container in containers]
    if not parts:
        raise PosteriorError("join() needs draws of at least one fit.")
    for number, part in enumerate(parts[1:], start=1):
        _check_alike(parts[0], part, number)
    joined = {}
    for name in parts[0]:
        if not all(name in part for part in parts):
            continue
        members = [part[name] for part in parts]
        joined[name] = members[0] if name in ("prior", "observed_data") else _chains(members)
    return wrap(joined)


def _chains(members: Sequence[xr.Dataset]) -> xr.Dataset:
    first = 0
    numbered = []
    for member in members:
        count = member.sizes["chain"]
        numbered.append(member.assign_coords(chain=np.arange(first, first + count)))
        first += count
    return xr.concat(
        numbered,
        dim="chain",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="outer",
        combine_attrs="override",
    )


def _check_alike(first: Groups, other: Groups, number: int) -> None:
    sizes = [dict(part["posterior"].sizes) for part in (first, other)]
    for size in sizes:
        size.pop("chain")
    if sizes[0] != sizes[1]:
        differs = sorted(f"{name}={size}" for name, size in set(sizes[0].items()) ^ set(sizes[1].items()))
        raise PosteriorError(
            f"The draws of fit {number} are of another network than those of fit 0, or of another number "
            f"({', '.join(differs)}): join fits of the same network with the same draws=."
        )
