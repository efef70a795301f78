"""What the groups of a posterior hold: which variables, in which range. Declared once, checked at once."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from bayesprune.errors import PosteriorError

MOST_TOLD = 5


@dataclass(frozen=True)
class Values:
    """What a variable's numbers can be.

    Attributes:
        least: smallest number.
        most: largest number.
        missing: whether NaN stands for what there is not.
        impossible: whether −∞ may stand for the logarithm of nothing.
        needed: whether the group makes no sense without it.
    """

    least: float = -math.inf
    most: float = math.inf
    missing: bool = False
    impossible: bool = False
    needed: bool = True

    def problem(self, values: Any) -> str:
        """What is wrong with an array; empty if nothing is."""
        truth = (self.least, self.most) == (0, 1)  # else arithmetic would end in NumPy's own errors
        if values.dtype.kind not in ("biuf" if truth else "iuf"):
            return f"holds {values.dtype}, no numbers"
        if values.dtype.kind == "f":
            if not self.missing and np.isnan(values).any():
                return "holds NaN"
            values = values[~np.isnan(values)]
            if self.impossible:
                values = values[~np.isneginf(values)]
            if np.isinf(values).any():
                return "holds infinity"
        if values.size and not self.least <= values.min() <= values.max() <= self.most:
            return f"runs from {values.min():.6g} to {values.max():.6g}, not {self.least} to {self.most}"
        return ""


BIT, SHARE, COUNT = Values(0, 1), Values(0, 1), Values(0)
NUMBER, LOG = Values(), Values(impossible=True)
OWN = Values(needed=False)

CONTENTS: Mapping[str, Mapping[str, Values]] = {
    "posterior": {"gate/*": BIT, "inclusion_prob/*": SHARE, "*": OWN},
    "prior": {"gate/*": BIT, "*": OWN},
    "sample_stats": {
        "lp": LOG, "log_q": LOG, "macs": COUNT, "parameters": COUNT,
        "elbo": Values(impossible=True, needed=False), "score": OWN,
    },
    "posterior_predictive": {"y": NUMBER, "mean": OWN, "hard_mean": OWN, "hard_score": OWN},
    "log_likelihood": {"y": LOG},
    "history": {
        "elbo": Values(missing=True), "nll": Values(missing=True), "macs": Values(0, missing=True),
        "parameters": Values(0, missing=True), "undecided": Values(0, missing=True),
        "kept": Values(0, missing=True), "inclusion_prob/*": Values(0, 1, missing=True),
    },
    "observed_data": {"y": NUMBER},
    "constant_data": {
        "size": COUNT, "parameters_per_unit": COUNT, "macs_per_unit": COUNT, "optional": BIT,
        "dense_macs": COUNT, "dense_parameters": COUNT, "rows": Values(1),
        "decided_at": Values(0, missing=True), "rounded": COUNT, "alive/*": BIT,
        "at_decision/*": Values(0, 1, missing=True, needed=False),
        "gain_of_steps": Values(missing=True, needed=False),
    },
}  # fmt: skip
"""Group → variable, or a pattern of such → its values. Sites of a prior of one's own have any name."""
NEEDED = ("posterior", "sample_stats", "constant_data")


def check_contents(groups: Mapping[str, xr.Dataset], place: str) -> None:
    """Make sure that draws hold what whoever reads them relies on.

    Args:
        groups: group → variables, under the names of their sites.
        place: the file, or what else they come from, for the message.

    Raises:
        PosteriorError: groups or variables are missing or unknown, or numbers are of no such thing; the
            first five are named.
    """
    found = list(_problems(groups))
    if found:
        more = f"; and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
        raise PosteriorError(
            f"{place}: {'; '.join(found[:MOST_TOLD])}{more}. It was changed, or is no posterior of ours: "
            "run the program again."
        )


def _problems(groups: Mapping[str, xr.Dataset]) -> Iterator[str]:
    yield from (f"there is no group {name!r}" for name in NEEDED if name not in groups)
    for name, group in groups.items():
        if name not in CONTENTS:
            yield f"the group {name!r:.40} is not known"
        else:
            yield from (f"{name}/{text}" for text in _of_group(group, CONTENTS[name]))
    if "posterior" in groups:
        yield from _of_draws(groups)
    if "log_likelihood" in groups:
        stats = groups["sample_stats"].data_vars if "sample_stats" in groups else ()
        yield from (f"sample_stats/{n} is missing" for n in ("elbo", "score") if n not in stats)
        if "posterior_predictive" not in groups:
            yield "there is no group 'posterior_predictive'"
        elif "hard_score" not in groups["posterior_predictive"]:
            yield "posterior_predictive/hard_score is missing"
    yield from _of_rows(groups)


def _of_group(group: xr.Dataset, known: Mapping[str, Values]) -> Iterator[str]:
    names = [str(name) for name in group.data_vars]
    for pattern, values in known.items():
        if values.needed and not fnmatch.filter(names, pattern):
            yield f"{pattern} is missing"
    for name in names:
        matching = [values for pattern, values in known.items() if fnmatch.fnmatchcase(name, pattern)]
        if not matching:
            yield f"{name:.40} is not known"
        elif text := matching[0].problem(group[name].values):
            yield f"{name:.40} {text}"


def _of_draws(groups: Mapping[str, xr.Dataset]) -> Iterator[str]:
    """Every gate has its draws and its probability, of the same units."""
    posterior = groups["posterior"]
    if min(posterior.sizes.get(name, 0) for name in ("chain", "draw")) < 1:
        yield "posterior holds no draws"
    parted = [str(name).partition("/") for name in posterior.data_vars]
    for group in dict.fromkeys(group for kind, _, group in parted if kind in ("gate", "inclusion_prob")):
        dims = ("chain", "draw", f"{group}_unit")
        for other in (f"gate/{group}", f"inclusion_prob/{group}"):
            if other not in posterior:
                yield f"posterior/{other:.40} is missing"
            elif posterior[other].dims != dims:
                yield f"posterior/{other:.40} has the dimensions {posterior[other].dims}, not {dims}"
    over = {"sample_stats": ("chain", "draw"), "history": ("chain", "epoch")}
    for part, first in over.items():
        for name in map(str, groups[part].data_vars if part in groups else ()):
            if groups[part][name].dims[:2] != first:
                yield f"{part}/{name:.40} has the dimensions {groups[part][name].dims}, not {first}"
    chains = {part: data.sizes["chain"] for part, data in groups.items() if "chain" in data.sizes}
    chains.pop("prior", None)
    if len(set(chains.values())) > 1:
        yield f"numbers of chains differ: {', '.join(f'{n} in {part}' for part, n in chains.items())}"


def _of_rows(groups: Mapping[str, xr.Dataset]) -> Iterator[str]:
    """What is said of some rows is said of as many, and classes are among those that are predicted."""
    first: dict[str, dict[str, tuple[str, ...]]] = {
        "log_likelihood": {"y": ("chain", "draw", "row")},
        "posterior_predictive": {
            "y": ("chain", "draw", "row"), "mean": ("chain", "row"), "hard_mean": ("chain", "row"),
            "hard_score": ("chain",),
        },
        "observed_data": {"y": ("row",)},
    }  # fmt: skip
    parts = {part: groups[part] for part in first if part in groups}
    wrong = [
        f"{part}/{name} has the dimensions {data[name].dims}, which do not begin with {dims}"
        for part, data in parts.items()
        for name, dims in first[part].items()
        if name in data and data[name].dims[: len(dims)] != dims
    ]
    rows = {part: data.sizes["row"] for part, data in parts.items() if "row" in data.sizes}
    if len(set(rows.values())) > 1:
        wrong.append(f"numbers of rows differ: {', '.join(f'{n} in {part}' for part, n in rows.items())}")
    predictive = parts.get("posterior_predictive", xr.Dataset())
    names = ("mean", "hard_mean")  # either both or none
    means = [predictive[name] for name in names if name in predictive]
    if len(means) == 1:
        wrong += [f"posterior_predictive/{name} is missing" for name in names if name not in predictive]
    if len({mean.shape for mean in means}) > 1:
        wrong.append("posterior_predictive/mean and hard_mean have different shapes")
    yield from wrong
    if not wrong and "y" in predictive and predictive["y"].dtype == np.int16:
        yield from _of_classes(parts, means)


def _of_classes(parts: Mapping[str, xr.Dataset], means: list[xr.DataArray]) -> Iterator[str]:
    for mean in means:
        if mean.size and not -1e-3 <= mean.values.min() <= mean.values.max() <= 1 + 1e-3:
            yield f"posterior_predictive/{mean.name} holds no probabilities"
    classes = means[0].shape[-1] if means else np.iinfo(np.int16).max
    for part in ("posterior_predictive", "observed_data"):
        if "y" not in parts.get(part, ()):
            continue
        labels = parts[part]["y"].values
        if labels.dtype.kind not in "iu" or (labels.size and not 0 <= labels.min() <= labels.max() < classes):
            yield f"{part}/y holds no numbers of {classes} classes"
