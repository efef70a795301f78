"""What a plot may be given: results of fits, a posterior, draws in ArviZ's form; all become named groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from bayesprune.errors import PosteriorError
from bayesprune.gated import GatedModel
from bayesprune.posterior.arviz import Groups, unwrap
from bayesprune.posterior.history import MARK, constant_data, history
from bayesprune.posterior.join import join
from bayesprune.posterior.plots.figures import plain
from bayesprune.posterior.value import Posterior
from bayesprune.svi.result import FitResult

Array = np.ndarray[Any, Any]
GATES = "inclusion_prob/"
KEPT = 0.5


@dataclass(frozen=True)
class Source:
    """What is plotted.

    Attributes:
        groups: group → variables, as ``to_arviz`` has them; of fits, without any draws of gates.
        labels: what each fit is called in a legend.
    """

    groups: Groups
    labels: tuple[str, ...]

    def need(self, group: str, remedy: str) -> xr.Dataset:
        """A group that a plot shows.

        Raises:
            PosteriorError: it is not there; the remedy is said.
        """
        if group not in self.groups:
            raise PosteriorError(
                f"This plot shows the group {group!r}, and there are only {', '.join(self.groups)}: {remedy}"
            )
        return self.groups[group]

    def inclusion(self) -> dict[str, Array]:
        """Group of units → (fits, units), q(z = 1)."""
        posterior = self.need("posterior", "give the result of fit(), or its posterior().to_arviz().")
        return {
            str(name).removeprefix(GATES): values.isel(draw=0).values.astype(np.float64)
            for name, values in posterior.items()
            if str(name).startswith(GATES)
        }

    def over_epochs(self, variable: str) -> Array:
        """(fits, epochs, ...) of the history; NaN where a fit had fewer epochs than another."""
        remedy = "give the result of fit() itself; a model that was not fitted has no history."
        return np.asarray(self.need("history", remedy)[variable].values, np.float64)


def source_of(given: Any, labels: Sequence[str] | None = None) -> Source:
    """Read what a plot was given.

    Args:
        given: a ``FitResult`` or ``GatedModel``, several of them, a ``Posterior``, or one or several
            containers from ``to_arviz`` or ``read``.
        labels: what the fits are called; by default ``fit 0``, ``fit 1``, ….

    Raises:
        PosteriorError: something else; another program's draws; or not a label for each fit.
    """
    groups = _groups(given)
    fits = next(part.sizes["chain"] for part in groups.values() if "chain" in part.sizes)
    names = [f"fit {number}" for number in range(fits)] if labels is None else list(labels)
    if len(names) != fits:
        raise PosteriorError(f"labels= has {len(names)} names for {fits} fits: give one for each.")
    return Source(groups, tuple(plain(name) for name in names))


def _groups(given: Any) -> Groups:
    several = isinstance(given, Sequence) and not isinstance(given, str)
    members = list(given) if several else [given]
    if isinstance(given, Posterior) or (
        members and all(isinstance(m, FitResult | GatedModel) for m in members)
    ):
        fits = (given if isinstance(given, Posterior) else Posterior.of(members)).fits
        groups = {"posterior": _inclusion_of(fits), "constant_data": constant_data(fits)}
        return groups | ({"history": history(fits)} if any(fit.history for fit in fits) else {})
    return unwrap(join(members) if several else given)


def _inclusion_of(fits: Sequence[FitResult]) -> xr.Dataset:
    """The group ``posterior`` as far as it needs no draws: one draw's worth of inclusion probabilities."""
    theta = np.stack([fit.gated.inclusion_prob().detach().cpu().double().numpy() for fit in fits])
    variables = {
        f"{GATES}{name}": (("chain", "draw", f"{name}_unit"), theta[:, None, part])
        for name, part in fits[0].gated.slices().items()
    }
    return xr.Dataset(variables, attrs=MARK)
