"""The one file that speaks to ArviZ: 0.x keeps groups in ``InferenceData``, 1.x in ``xarray.DataTree``.

Everything else builds plain ``xarray.Dataset``s, one a group. Sites are named as in Pyro, ``gate/conv1``.
Neither a tree nor a NetCDF file allows a slash in a name, so there it is a colon: ``gate:conv1``.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import arviz
import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import H5NetCDFStore

from bayesprune.errors import PosteriorError
from bayesprune.files import write_atomically
from bayesprune.posterior.contents import check_contents
from bayesprune.posterior.stored import check_stored

MAKER = "bayesprune"
FORMAT = 1
Groups = dict[str, xr.Dataset]
TAKES_AXES = hasattr(arviz, "psislw")  # plots of 0.x draw into given axes, 1.x lays out its own figure
EQUAL = 1e-9
"""Log-weights that differ by less are equal."""
FITTED = 5
"""Weights that a tail is fitted to at the least."""
SPLIT = 4
"""Draws that a chain needs to be split in halves whose spread can be told."""
TAILS = (0.05, 0.95)


def wrap(groups: Mapping[str, xr.Dataset], tree: bool | None = None) -> Any:
    """Groups in the container of the installed ArviZ.

    Args:
        groups: group → its variables.
        tree: ``DataTree`` or not; by default what ArviZ has.

    Returns:
        ``arviz.InferenceData`` (0.x) or ``xarray.DataTree`` (1.x).
    """
    if tree is None:
        # 1.x answers to the old name as well, with a warning: look, and do not ask.
        tree = vars(arviz).get("InferenceData", xr.DataTree) is xr.DataTree
    if tree:
        return xr.DataTree.from_dict({f"/{name}": _renamed(part, "/", ":") for name, part in groups.items()})
    make: Any = arviz.InferenceData  # its annotations do not know groups as keywords
    return make(**groups)


def unwrap(container: Any) -> Groups:
    """The groups of either container, under the names of their sites.

    Args:
        container: of ``wrap``, or of another program.

    Raises:
        PosteriorError: it is neither, or was not made by this library.
    """
    if hasattr(container, "children") and hasattr(container, "to_dataset"):
        groups = {name: _renamed(node.to_dataset(), ":", "/") for name, node in container.children.items()}
    elif callable(getattr(container, "groups", None)):
        groups = {name: _renamed(container[name], ":", "/") for name in container.groups()}
    else:
        raise PosteriorError(
            f"A {type(container).__name__} holds no posterior draws: give result.posterior().to_arviz(), or "
            "what bayesprune.posterior.read() returns."
        )
    return check(groups, type(container).__name__)


def check(groups: Groups, place: str) -> Groups:
    """The same groups, if this library made them.

    Args:
        groups: group → variables.
        place: for the message.

    Raises:
        PosteriorError: the mark in the group ``posterior`` is missing, or of a later format.
    """
    attributes = groups["posterior"].attrs if "posterior" in groups else {}
    maker = attributes.get("inference_library", "an unknown program")
    if not isinstance(maker, str) or maker != MAKER:
        raise PosteriorError(
            f"{place} was written by {maker!s:.80}, not by {MAKER} (groups: {', '.join(groups) or 'none'}): "
            "it has no gates to read. Give the draws of result.posterior().to_arviz()."
        )
    made = np.asarray(attributes.get("format", 0)).reshape(-1)  # h5netcdf gives an array of one
    if made.dtype.kind not in "iu" or len(made) != 1 or not 0 <= made[0] <= FORMAT:
        raise PosteriorError(
            f"{place} has format {str(*made[:1]):.20}, and this version reads {FORMAT}: update {MAKER}."
        )
    return groups


def write(container: Any, path: str | Path, overwrite: bool = False) -> Path:
    """Write draws as NetCDF, whole or not at all.

    Args:
        container: as ``to_arviz`` gives it.
        path: the file; ``arviz.from_netcdf`` reads it too, with ``:`` for ``/`` in names.
        overwrite: replace a file that is there.

    Raises:
        PosteriorError: not this library's draws; or the file is there and was not to be replaced.
        OSError: it cannot be written; a file that was there is untouched.
    """
    groups, path = unwrap(container), Path(path)
    if path.exists() and not overwrite:
        raise PosteriorError(
            f"{path} exists and is left as it is: choose another name, or say overwrite=True."
        )
    write_atomically(path, _packed(groups))
    return path


def _packed(groups: Groups) -> bytes:
    """The file's content, made in memory: a disk that is full must not be met inside the HDF5 library."""
    import h5netcdf

    content = io.BytesIO()
    for number, (name, part) in enumerate(groups.items()):
        data = _renamed(part, "/", ":")
        packed: dict[Any, dict[str, Any]] = {
            v: {"zlib": True, "complevel": 1} for v in data.data_vars if data[v].ndim
        }
        with h5netcdf.File(content, "a" if number else "w") as file:
            store: Any = H5NetCDFStore(file, group=name, autoclose=False)
            data.dump_to_store(store, encoding=packed)
            store.sync()
    return content.getvalue()


def read(path: str | Path) -> Any:
    """Read draws that ``write`` wrote.

    Args:
        path: the file, which stays as it is.

    Returns:
        The container of the installed ArviZ.

    Raises:
        PosteriorError: missing, damaged, or the file of another program; it refers to other files, announces
            more than it can hold, or has contents that are no posterior.
    """
    try:
        groups = {}
        for name in check_stored(Path(path)):
            with xr.open_dataset(path, group=name, engine="h5netcdf", decode_times=False) as part:
                groups[name] = _renamed(part.load(), ":", "/")
    except PosteriorError:
        raise
    except FileNotFoundError:
        raise PosteriorError(
            f"{path}: no such file. Write it with bayesprune.posterior.write(result.posterior().to_arviz(), "
            f"{str(path)!r})."
        ) from None
    except Exception as problem:  # the formats' own errors have no common base
        raise PosteriorError(f"{path} cannot be read: damaged, or no NetCDF file ({problem}).") from problem
    check(groups, str(path))
    check_contents(groups, str(path))
    return wrap(groups)


def pareto_k(log_weights: npt.NDArray[np.float64]) -> float:
    """Shape k̂ of the Pareto tail of importance weights (Vehtari et al., arXiv 1507.02646), by ArviZ.

    Args:
        log_weights: (draws,), up to a constant.

    Returns:
        k̂; below a limit, 0.7 at most, the weights can be trusted. NaN where it cannot be told, since the
        tail takes fewer than five values: all weights are equal, or a few gates are drawn over and over.
        Infinity where some are zero, where there are too few draws, or one outweighs all others beyond what
        floating point can tell.
    """
    return smoothed(log_weights)[1]


def smoothed(log_weights: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """Importance weights with their largest smoothed (PSIS), by ArviZ; as they are where no tail is fitted.

    Args:
        log_weights: (draws,), up to a constant.

    Returns:
        (draws,), logarithms of weights that sum to one, and k̂ as of ``pareto_k``. NaN as weights where one
        is infinite, or all are zero.
    """
    if not np.isfinite(log_weights).all():
        return _normalised(log_weights), float("inf")  # draws that the posterior forbids
    if np.ptp(log_weights) < EQUAL or len(_tail(log_weights)) >= FITTED > values_in_tail(log_weights):
        return _normalised(log_weights), float("nan")  # a fit to steps says anything
    if hasattr(arviz, "psislw"):
        psislw: Any = arviz.psislw
        with np.errstate(over="ignore"):  # of shapes that a tail of few values rules out: they weigh nothing
            weights, k = psislw(log_weights.copy())
    else:
        from arviz_stats.base import array_stats  # ArviZ 1.x: takes minus the log-weights, as LOO has them

        try:
            weights, k = array_stats.psislw(-log_weights)
        except ValueError:  # fewer than five weights in the tail, or all of them equal: 0.x has infinity then
            weights, k = log_weights, np.inf
    # no tail can be fitted to a single weight
    return _normalised(np.asarray(weights)), float("inf") if np.isnan(k) else float(k)


def _normalised(log_weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(log_weights - np.logaddexp.reduce(log_weights))


def values_in_tail(log_weights: npt.NDArray[np.float64]) -> int:
    """Different values among the largest weights, those that a tail is fitted to.

    Args:
        log_weights: (draws,), up to a constant.
    """
    tail = _tail(log_weights)
    return min(len(tail), 1 + int((np.diff(tail) > EQUAL).sum()))


def _tail(log_weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The largest weights, in order: as many as PSIS takes."""
    finite = log_weights[np.isfinite(log_weights)]
    draws = len(log_weights)
    return np.sort(finite)[-math.ceil(min(0.2 * draws, 3 * math.sqrt(draws))) :]


def rank_rhat(values: npt.NDArray[Any]) -> float:
    """R̂ of ranks, the larger of that of the values and of their distance from the median, by ArviZ.

    Args:
        values: (chains, draws).

    Returns:
        R̂ (Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021): chains that differ in place or in width are
        above 1.01. 1 where all values are the same; infinity where each chain is constant and they differ;
        NaN of fewer than four draws.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.shape[1] < SPLIT:
        return float("nan")
    if not np.ptp(values, axis=1).any():
        return 1.0 if np.ptp(values) == 0 else float("inf")
    return float(_statistics().rhat(values, method="rank"))


def effective_draws(values: npt.NDArray[Any]) -> tuple[float, float]:
    """Effective sample size of the bulk and of the tails (5 and 95 %), of all chains together, by ArviZ.

    Args:
        values: (chains, draws), at least four draws.
    """
    values = np.asarray(values, dtype=np.float64)
    found = _statistics()
    return float(found.ess(values, method="bulk")), float(found.ess(values, method="tail", prob=TAILS))


def _statistics() -> Any:
    """Functions of arrays (chains, draws)."""
    if hasattr(arviz, "psislw"):
        return arviz
    from arviz_stats.base import array_stats

    return array_stats


def forest(fits: Mapping[str, xr.Dataset], colours: Sequence[str], ax: Any | None = None) -> Any:
    """ArviZ's forest plot of the variables of some fits, an interval each.

    Args:
        fits: name of a fit → variables of dimensions (chain, draw), chains taken together.
        colours: one a fit; ArviZ 1.x takes its own.
        ax: to draw into; not for ArviZ 1.x.

    Returns:
        The matplotlib axes that hold the intervals.
    """
    plot: Any = arviz.plot_forest  # without annotations in 0.x
    if TAKES_AXES:
        style = (
            {"model_names": list(fits), "colors": list(colours)} if len(fits) > 1 else {"colors": colours[0]}
        )
        return plot(list(fits.values()), combined=True, ax=ax, textsize=9, legend=False, **style)[0]
    trees = {name: xr.DataTree.from_dict({"/posterior": data}) for name, data in fits.items()}
    size = {"figsize": (5.5, 1.6 + 0.25 * len(fits)), "figsize_units": "inches", "layout": "constrained"}
    drawn = plot(trees, combined=True, backend="matplotlib", figure_kwargs=size)
    if len(fits) > 1:
        drawn.add_legend("model", title="", loc="outside right upper", frameon=False)
    return drawn.get_target(next(iter(next(iter(fits.values())).data_vars)), {}).sel(column="forest").item()


def _renamed(data: xr.Dataset, old: str, new: str) -> xr.Dataset:
    names = [str(name) for name in data.variables] + [str(dim) for dim in data.sizes]
    table = {name: name.replace(old, new) for name in names if old in name}
    return data.rename(table) if table else data
