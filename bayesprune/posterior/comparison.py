"""Fits of the same rows as a table that says what it conditions on."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from bayesprune.posterior.loo import EVERY, Loo, error_of_sum

Array = npt.NDArray[np.float64]
By = Literal["elpd_loo", "held_out"]
WIDTH = 110
SMALL_DIFFERENCE, FEW_ROWS = 4.0, 100
"""Nats and rows below which the standard error of a difference says too little (arXiv 2008.10296)."""


@dataclass(frozen=True, eq=False)
class Compared:
    """One fit of a comparison.

    Attributes:
        name: what it is called.
        loo: leave-one-out densities; None where rows cannot be left out.
        why_no_loo: why; else empty.
        held_out: (rows,), log predictive density of held-out rows, nats; None where there are none.
        elbo: mean over draws of log p(y, z, w) − log q(z, w), nats, given what are points, and the prior of
            masks normalised: a flattening prior is then the Bernoulli of log-odds −price. NaN of a sampler's.
        elbo_error: Monte-Carlo standard error of it, nats.
        kept: mean number of units over draws of masks.
        units: of the dense network.
        macs_percent: mean multiply-accumulates over draws, of the dense network's.
    """

    name: str
    loo: Loo | None
    why_no_loo: str
    held_out: Array | None
    elbo: float
    elbo_error: float
    kept: float
    units: int
    macs_percent: float

    def scores(self, by: By) -> Array | None:
        """(rows,), nats, of what fits are compared by."""
        return self.held_out if by == "held_out" else None if self.loo is None else self.loo.elpd


@dataclass(frozen=True, eq=False)
class Comparison:
    """Fits of the same rows, the best first; ``print`` shows them as a table.

    Attributes:
        fits: in the order of ``by``; those without it come last.
        by: ``"elpd_loo"`` or ``"held_out"``.
        why: why by that.
    """

    fits: tuple[Compared, ...]
    by: By
    why: str

    def __len__(self) -> int:
        return len(self.fits)

    def __getitem__(self, name: str) -> Compared:
        """A fit, by its name."""
        found = [fit for fit in self.fits if fit.name == name]
        if not found:
            raise KeyError(f"{name!r} is none of {[fit.name for fit in self.fits]}")
        return found[0]

    def difference(self, name: str) -> tuple[float, float]:
        """What a fit lacks of the best one's score, and its standard error, row by row: nats, of all rows.

        Args:
            name: of the fit; 0 and 0 of the best one, NaN where it has no score.
        """
        best, own = self.fits[0].scores(self.by), self[name].scores(self.by)
        if best is None or own is None:
            return float("nan"), float("nan")
        apart = own - best
        return float(apart.sum()), error_of_sum(apart)

    def to_dataframe(self) -> Any:
        """A ``pandas.DataFrame``, a row a fit, indexed by its name; pandas comes with xarray."""
        columns = [self._numbers(fit) for fit in self.fits]
        data = xr.Dataset({name: ("fit", [each[name] for each in columns]) for name in columns[0]})
        data = data.assign_coords(fit=[fit.name for fit in self.fits])
        return data.to_dataframe()[list(columns[0])]

    def _numbers(self, fit: Compared) -> dict[str, Any]:
        lacks, error = self.difference(fit.name)
        found, nan = fit.loo, float("nan")
        mean, spread = _per_row(fit.held_out)
        return {
            "elpd_loo": found.elpd_loo if found else nan, "se": found.se if found else nan,
            "difference": lacks, "difference_se": error, "p_loo": found.p_loo if found else nan,
            "bad_k": found.bad if found else nan, "limit": found.limit if found else nan,
            "guide_k": found.guide_k if found else nan, "points": found.points if found else nan,
            "held_out": mean, "held_out_se": spread, "elbo": fit.elbo, "elbo_error": fit.elbo_error,
            "kept": fit.kept, "units": fit.units, "macs_percent": fit.macs_percent,
        }  # fmt: skip

    def __str__(self) -> str:
        heading = [
            "fit",
            "elpd_loo",
            "difference",
            "p_loo",
            "k̂ bad",
            "held out, a row",
            "ELBO",
            "kept",
            "MACs",
        ]
        table = [heading, *(self._cells(fit) for fit in self.fits)]
        wide = [max(len(line[column]) for line in table) for column in range(len(heading))]
        lines = [
            "  ".join(
                c.ljust(w) if n == 0 else c.rjust(w) for n, (c, w) in enumerate(zip(line, wide, strict=True))
            )
            for line in table
        ]
        return "\n".join(
            [
                *lines,
                "",
                *(
                    textwrap.fill(f"· {n}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
                    for n in self.notes
                ),
            ]
        )

    def _cells(self, fit: Compared) -> list[str]:
        found, (lacks, error) = fit.loo, self.difference(fit.name)
        mark = "*" if found is not None and found.optimistic else ""
        mean, spread = _per_row(fit.held_out)
        return [
            fit.name,
            "–" if found is None else f"{found.elpd_loo:.1f}{mark} ± {found.se:.1f}",
            "–" if np.isnan(lacks) else f"{lacks:.1f} ± {error:.1f}",
            "–" if found is None else f"{found.p_loo:.1f}",
            "–" if found is None or np.isnan(found.pareto_k).all() else f"{found.bad} of {len(found.elpd)}",
            "–" if np.isnan(mean) else f"{mean:.4f} ± {spread:.4f}",
            "–" if np.isnan(fit.elbo) else f"{fit.elbo:.1f}{mark}",
            f"{fit.kept:.1f} of {fit.units}",
            f"{fit.macs_percent:.1f} %",
        ]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the table conditions on, and what of it is not to be believed."""
        every = [fit.loo for fit in self.fits if fit.loo is not None]
        notes = [
            f"Compared by {'held-out rows' if self.by == 'held_out' else 'elpd_loo'}, {self.why}; nats. "
            "elpd_loo is of the posterior: draws of the guide are weighed by p(y, z, w) / q(z, w)."
        ]
        if self.fits[0].held_out is not None:
            notes[0] += " Held-out rows are predicted by the guide, as bp.predict does."
        given: dict[tuple[str, ...], list[str]] = {}
        for fit in self.fits:
            if fit.loo is not None:
                given.setdefault(fit.loo.saw, []).append(fit.name)
        notes += [
            f"{', '.join(names)}: given {'; '.join(what)}. That was learnt from {EVERY}."
            for what, names in given.items()
            if what
        ]
        starred = [fit for fit in self.fits if fit.loo is not None and fit.loo.optimistic]
        if starred:
            notes.append(
                f"* elpd_loo and ELBO are optimistic ({', '.join(fit.name for fit in starred)}): numbers "
                "that are points saw the row that is left out, and each may add a nat. Let weights have a "
                "posterior (NormalWeights(posterior='normal'), Recipe(compact_weights='normal')), or compare "
                "by rows held out."
            )
        bad = [fit.name for fit in self.fits if fit.loo is not None and fit.loo.bad]
        if bad:
            notes.append(
                f"k̂ is bad above {every[0].limit:.2f}: elpd_loo of {', '.join(bad)} rests on a few draws of "
                "the guide, and is not to be believed to its standard error. More draws= may help; rows "
                "held out do."
            )
        notes += [f"{fit.name} has no elpd_loo: {fit.why_no_loo}." for fit in self.fits if fit.loo is None]
        close = [fit.name for fit in self.fits[1:] if abs(self.difference(fit.name)[0]) < SMALL_DIFFERENCE]
        if close:
            far = f"less than {SMALL_DIFFERENCE:g} nats from the best"
            notes.append(f"{', '.join(close)}: {far}, which is no difference.")
        scores = self.fits[0].scores(self.by)
        if len(self.fits) > 1 and scores is not None and len(scores) < FEW_ROWS:
            notes.append(
                f"Of {len(scores)} rows standard errors of differences are too small more often than not."
            )
        return tuple(notes)


def _per_row(scores: Array | None) -> tuple[float, float]:
    if scores is None:
        return float("nan"), float("nan")
    return float(scores.mean()), error_of_sum(scores) / len(scores)
