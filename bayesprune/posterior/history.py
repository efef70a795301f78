"""Groups that hold no draws: what happened over the epochs, and what stayed as it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayesprune.posterior.arviz import FORMAT, MAKER
from bayesprune.svi.result import Epoch, FitResult

MARK = {"inference_library": MAKER, "format": FORMAT}


def history(fits: Sequence[FitResult]) -> xr.Dataset:
    """Every epoch of every fit, NaN where a fit had fewer epochs.

    Args:
        fits: one a chain.

    Returns:
        Dimensions chain and epoch (from 1): elbo, nll, macs, parameters, undecided; kept (group); and
        inclusion_prob/<group> (<group>_unit).
    """
    longest = max(len(fit.history) for fit in fits)
    dense = fits[0].gated.dense_macs, fits[0].gated.dense_parameters

    def padded(value: Callable[[Epoch], Any], *shape: int, kind: Any = np.float64) -> Any:
        out = np.full((len(fits), longest, *shape), np.nan, kind)
        for chain, fit in enumerate(fits):
            for number, epoch in enumerate(fit.history):
                out[chain, number] = value(epoch)
        return out

    over = ("chain", "epoch")
    names = [g.name for g in fits[0].gated.groups]
    variables: dict[str, Any] = {
        "elbo": (over, padded(lambda e: e.elbo), {"units": "nats"}),
        "nll": (over, padded(lambda e: e.nll), {"units": "nats a row"}),
        "undecided": (over, padded(lambda e: e.undecided), {"units": "gates with 0.01 < q(z = 1) < 0.99"}),
        "macs": (
            over, padded(lambda e: e.macs_percent / 100 * dense[0]), {"units": "multiply-accumulates a row"},
        ),
        "parameters": (over, padded(lambda e: e.parameters_percent / 100 * dense[1]), {"units": "numbers"}),
        "kept": (
            (*over, "group"), padded(lambda e: [e.kept[n] for n in names], len(names)), {"units": "units"},
        ),
    }  # fmt: skip
    theta = padded(lambda e: e.inclusion.numpy(), sum(g.size for g in fits[0].gated.groups), kind=np.float32)
    for name, part in fits[0].gated.slices().items():
        variables[f"inclusion_prob/{name}"] = (
            (*over, f"{name}_unit"),
            theta[..., part],
            {"units": "probability"},
        )
    coords = {"chain": np.arange(len(fits)), "epoch": np.arange(1, longest + 1), "group": names}
    units = {f"{g.name}_unit": np.arange(g.size) for g in fits[0].gated.groups}
    return xr.Dataset(variables, coords=coords | units, attrs=MARK)


def constant_data(fits: Sequence[FitResult]) -> xr.Dataset:
    """What describes the dense network and how each fit ended.

    Args:
        fits: one a chain.

    Returns:
        By group: size, parameters_per_unit, macs_per_unit, optional; ``alive/<group>`` by original unit id;
        dense_macs, dense_parameters, rows; by chain: decided_at (NaN if never), rounded; and, where a fit
        was decided, ``at_decision/<group>``, q(z = 1) just before (NaN for fits that have not kept it).
    """
    gated, groups = fits[0].gated, fits[0].gated.groups
    variables: dict[str, Any] = {
        "size": ("group", [g.size for g in groups], {"units": "units"}),
        "parameters_per_unit": ("group", [g.parameters for g in groups], {"units": "numbers"}),
        "macs_per_unit": ("group", [g.macs for g in groups], {"units": "multiply-accumulates a row"}),
        "optional": ("group", [int(g.optional) for g in groups], {"description": "1: may be lost entirely"}),
        "dense_macs": ((), gated.dense_macs, {"units": "multiply-accumulates a row"}),
        "dense_parameters": ((), gated.dense_parameters, {"units": "numbers"}),
        "rows": ((), gated.likelihood.rows, {"units": "rows", "description": "of the training set"}),
        "decided_at": (
            "chain", [float("nan" if f.decided_at is None else f.decided_at) for f in fits],
            {"units": "epoch", "description": "NaN: never"},
        ),
        "rounded": ("chain", [f.rounded for f in fits], {"units": "gates", "description": "put at a vertex"}),
    }  # fmt: skip
    for name, part in gated.slices().items():
        alive = np.stack([f.gated.alive[part].cpu().numpy() for f in fits]).astype(np.int8)
        variables[f"alive/{name}"] = (("chain", f"{name}_unit"), alive, {"description": "1: not removed"})
        if any(f.at_decision is not None for f in fits):
            about = {"units": "probability", "description": "q(gate = 1) just before it was decided"}
            variables[f"at_decision/{name}"] = (
                ("chain", f"{name}_unit"), np.stack([_known(f, part) for f in fits]), about,
            )  # fmt: skip
    coords = {"chain": np.arange(len(fits)), "group": [g.name for g in groups]}
    units = {f"{g.name}_unit": np.arange(g.size) for g in groups}
    return xr.Dataset(variables, coords=coords | units, attrs=MARK)


def _known(fit: FitResult, part: slice) -> Any:
    """(units,), q(z = 1) just before gates were decided; NaN where that is not known."""
    if fit.at_decision is None:
        return np.full(part.stop - part.start, np.nan, np.float32)
    return fit.at_decision.inclusion_prob().detach().cpu().numpy()[part].astype(np.float32)
