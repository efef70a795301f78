"""Groups of named arrays from chains of draws: dimensions, coordinates, units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from bayesprune.errors import PosteriorError
from bayesprune.posterior.arviz import FORMAT, MAKER, Groups
from bayesprune.posterior.chain import Chain, elbo_of
from bayesprune.posterior.history import constant_data, history
from bayesprune.posterior.rows import Asked
from bayesprune.svi.result import FitResult

Array = np.ndarray[Any, Any]
SAMPLES = ("chain", "draw")


def assemble(
    fits: Sequence[FitResult],
    chains: Sequence[Chain],
    thin: int,
    prior: tuple[dict[str, Tensor], dict[str, Tensor]] | None,
    observed: Asked | None,
) -> Groups:
    """All groups.

    Args:
        fits: one a chain.
        chains: their draws.
        thin: every so many draws were kept.
        prior: gates by group and hyper-sites, drawn from the prior.
        observed: rows whose targets are to be kept.

    Returns:
        Group → its variables.
    """
    groups = {"posterior": _posterior(fits, chains, thin), "sample_stats": _sample_stats(fits, chains, thin)}
    if prior is not None:
        groups["prior"] = _prior(fits[0], *prior)
    if chains[0].rows is not None:
        groups["posterior_predictive"] = _predictive(fits, chains, thin)
        of_rows = _known(chains, "log_likelihood")
        if of_rows is not None:
            nats = {"y": ((*SAMPLES, "row"), of_rows, {"units": "nats"})}
            groups["log_likelihood"] = _dataset(nats, _samples(chains, thin))
    if any(fit.history for fit in fits):
        groups["history"] = history(fits)
    if observed is not None and observed[1] is not None:
        y = _as_predicted(fits[0], observed[1].detach().cpu())
        groups["observed_data"] = _dataset({"y": (_row_dims(y.ndim), y, {})}, {})
    groups["constant_data"] = constant_data(fits)
    return groups


def _posterior(fits: Sequence[FitResult], chains: Sequence[Chain], thin: int) -> xr.Dataset:
    variables: dict[str, Any] = {}
    coords = _samples(chains, thin) | _units(fits[0])
    shape = (len(chains), len(chains[0].lp))
    for name, part in fits[0].gated.slices().items():
        dims = (*SAMPLES, f"{name}_unit")
        gates = np.stack([c.draws.gates[:, part].numpy() for c in chains])
        variables[f"gate/{name}"] = dims, gates, {"units": "1", "description": "1 where the unit is there"}
        theta = np.stack([f.gated.inclusion_prob().detach().cpu().numpy()[part] for f in fits])
        spread = np.broadcast_to(theta[:, None].astype(np.float32), (*shape, theta.shape[-1]))
        about = {"units": "probability", "description": "q(gate = 1), the same in every draw"}
        variables[f"inclusion_prob/{name}"] = dims, spread, about
    for group, sites in chains[0].draws.hyper.items():
        for site in sites:
            values = _stacked([c.draws.hyper[group][site] for c in chains], shape)
            variables[site] = _site_dims(SAMPLES, site, values, group, fits[0]), values, {"units": "1"}
    for name in chains[0].weights:
        shapes = {tuple(c.weights[name].shape[1:]) for c in chains}
        if len(shapes) > 1:
            raise PosteriorError(
                f"Weight {name!r} has different shapes in different fits ({sorted(shapes)}), since other "
                "units were removed: ask for weights=True of one fit at a time."
            )
        values = np.stack([c.weights[name].numpy() for c in chains])
        variables[f"weight/{name}"] = _own_dims(SAMPLES, f"weight/{name}", values), values, {"units": "1"}
    return _dataset(variables, coords)


def _sample_stats(fits: Sequence[FitResult], chains: Sequence[Chain], thin: int) -> xr.Dataset:
    nats = {"units": "nats"}
    lp, log_q = (
        np.stack(v) for v in zip(*[(c.lp.numpy(), c.draws.log_q.numpy()) for c in chains], strict=True)
    )
    variables: dict[str, Any] = {
        "lp": (SAMPLES, lp, {**nats, "description": "log p(gates, hyper-sites, weights)"}),
        "log_q": (SAMPLES, log_q, {**nats, "description": "log q(gates, hyper-sites, weights)"}),
        "macs": (
            SAMPLES,
            np.stack([c.macs.numpy() for c in chains]),
            {"units": "multiply-accumulates a row"},
        ),
        "parameters": (SAMPLES, np.stack([c.parameters.numpy() for c in chains]), {"units": "numbers"}),
    }
    score = _known(chains, "score")
    if score is not None:
        elbo = np.stack([elbo_of(c, f.gated.likelihood.rows) for c, f in zip(chains, fits, strict=True)])
        variables["elbo"] = (
            SAMPLES,
            elbo,
            {
                **nats,
                "description": "lp + log-likelihood of the rows, scaled up to the training set, − log_q",
            },
        )
        variables["score"] = SAMPLES, score, {"units": fits[0].gated.likelihood.score_name}
    return _dataset(variables, _samples(chains, thin))


def _predictive(fits: Sequence[FitResult], chains: Sequence[Chain], thin: int) -> xr.Dataset:
    rows = [c.rows for c in chains if c.rows is not None]
    drawn = np.stack([r.predictive for r in rows])
    variables: dict[str, Any] = {"y": ((*SAMPLES, *_row_dims(drawn.ndim - 2)), drawn, {})}
    for name, parts in {"mean": [r.mean for r in rows], "hard_mean": [r.hard_mean for r in rows]}.items():
        there = [part for part in parts if part is not None]
        if len(there) == len(rows):
            values = np.stack(there).astype(np.float32)
            what = "averaged over draws" if name == "mean" else "under the hard mask"
            about = {"description": f"class probabilities, or the mean target, {what}"}
            variables[name] = ("chain", *_row_dims(values.ndim - 1, "output")), values, about
    hard = _known(chains, "hard_score")
    if hard is not None:
        variables["hard_score"] = ("chain",), hard, {"units": fits[0].gated.likelihood.score_name}
    return _dataset(variables, _samples(chains, thin))


def _known(chains: Sequence[Chain], name: str) -> Array | None:
    """(chains, ...), what the draws say of targets; None where there are none."""
    values = [getattr(c.rows, name) for c in chains if c.rows is not None]
    return np.stack(values) if values and all(value is not None for value in values) else None


def _as_predicted(fit: FitResult, targets: Tensor) -> Array:
    """Targets in the shape of drawn ones, so that ArviZ's predictive checks set one beside the other."""
    columns: Tensor = fit.gated.likelihood.plain.observe(targets)
    return (columns if columns.ndim > targets.ndim else targets).numpy()


def _prior(fit: FitResult, gates: dict[str, Tensor], hyper: dict[str, Tensor]) -> xr.Dataset:
    variables: dict[str, Any] = {}
    for name, drawn in gates.items():
        variables[f"gate/{name}"] = (*SAMPLES, f"{name}_unit"), drawn.cpu().numpy()[None], {"units": "1"}
    for site, drawn in hyper.items():
        values = drawn.cpu().numpy()[None]
        group = site.split("/", 1)[-1]
        variables[site] = _site_dims(SAMPLES, site, values, group, fit), values, {"units": "1"}
    number = len(next(iter(gates.values())))
    return _dataset(variables, {"chain": np.arange(1), "draw": np.arange(number)} | _units(fit))


def _stacked(chains: list[Tensor], shape: tuple[int, int]) -> Array:
    """(chains, draws, ...); one number in memory for all draws where the guide is a point."""
    if all(values.stride(0) == 0 for values in chains):
        points = np.stack([values[0].cpu().numpy() for values in chains])
        return np.broadcast_to(points[:, None], (*shape, *points.shape[1:]))
    return np.stack([values.cpu().numpy() for values in chains])


def _site_dims(
    start: tuple[str, ...], site: str, values: Array, group: str, fit: FitResult
) -> tuple[str, ...]:
    """A hyper-site with a number for each unit has the units' dimension."""
    sizes = {g.name: g.size for g in fit.gated.groups}
    if values.ndim == 3 and sizes.get(group) == values.shape[-1]:
        return (*start, f"{group}_unit")
    return _own_dims(start, site, values)


def _own_dims(start: tuple[str, ...], name: str, values: Array) -> tuple[str, ...]:
    return (*start, *(f"{name}_dim_{number}" for number in range(values.ndim - len(start))))


def _row_dims(number: int, last: str = "column") -> tuple[str, ...]:
    return ("row", *(last if n == 0 else f"{last}_{n}" for n in range(number - 1)))


def _samples(chains: Sequence[Chain], thin: int) -> dict[str, Array]:
    return {"chain": np.arange(len(chains)), "draw": np.arange(len(chains[0].lp)) * thin}


def _units(fit: FitResult) -> dict[str, Array]:
    return {f"{g.name}_unit": np.arange(g.size) for g in fit.gated.groups}


def _dataset(variables: dict[str, Any], coords: dict[str, Array]) -> xr.Dataset:
    return xr.Dataset(variables, coords=coords, attrs={"inference_library": MAKER, "format": FORMAT})
