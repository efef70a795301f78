"""`bayesprune run --baseline`: what a seed is compared with, kept network by network, and over seeds."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from bayesprune import baseline
from bayesprune.baseline import Limit, Plan, Rival
from bayesprune.baseline.plan import Cost
from bayesprune.cli import measure
from bayesprune.cli.job import Job
from bayesprune.errors import BayespruneError, RunFolderError
from bayesprune.files import read_json, write_json
from bayesprune.gated import GatedModel
from bayesprune.run_shapes import COUNT, RIVAL, RIVALS
from bayesprune.schema import Record, Text
from bayesprune.svi import FitResult

NAME = "baseline.json"
"""What was learnt for comparison so far, in the folder of a seed."""
APART = 2**31
"""From a seed to that of the small dense network's first weights."""
NAMES = {
    "dense": "the dense network",
    "small_dense": "a small dense network of the same cost",
    "magnitude": "the dense network pruned by magnitude",
}
_KEPT = Record({"cost": Text(("macs", "parameters")), "limit": COUNT}, dict.fromkeys(RIVALS, RIVAL))


class Clock:
    """Processor time of a fit, kept in its folder as long as the fit was not interrupted.

    Args:
        folder: of the run or seed.
        total: the sum of a number over the processes that fit.
    """

    def __init__(self, folder: Path, total: Callable[[float], float]) -> None:
        self.folder, self.total = folder, total
        checkpoints = folder / "checkpoints"
        self.whole = not (checkpoints.is_dir() and any(checkpoints.iterdir()))
        self.seconds: float | None = None

    def __enter__(self) -> Clock:
        self._began = time.process_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            used = self.total(time.process_time() - self._began)
            self.seconds = used if self.whole else None


def compared(
    job: Job,
    seed: int,
    gated: GatedModel,
    build: Callable[[int], GatedModel],
    clock: Clock,
    result: FitResult,
    figures: dict[str, Any],
) -> dict[str, Any]:
    """Learn what is not learnt yet; each network is written down when it has finished.

    Args:
        job: the run.
        seed: of the fit.
        gated: the model before the fit.
        build: seed → the same model with other first weights.
        clock: of the fit; knows the seed's folder.
        result: of the fit.
        figures: of the pruned network.

    Returns:
        Content of ``baseline`` in ``result.json``; a network that cannot be had is there as its reason,
        ``refused``.
    """
    if not any(math.isfinite(epoch.elbo) for epoch in result.history):
        name = job.inference.name
        told = {
            "refused": f"{name} learns no network by steps over epochs, so that nothing can be trained for "
            "as long beside it. Compare under an inference that does, such as svi_shrink."
        }
        job.say(f"Baseline: {told['refused']}")
        return told
    limit = limit_of(job.settings.budget, figures)
    path = clock.folder / NAME
    kept = _read(job, path, limit)
    if clock.seconds is not None:
        kept["processor_seconds"] = clock.seconds
        write_json(path, kept)
    plan = _plan(job, seed)
    makers: dict[str, Callable[[], Rival]] = {
        "dense": lambda: baseline.dense(gated, plan),
        "small_dense": lambda: baseline.small_dense(build((seed + APART) % 2**32), plan, limit),
        "magnitude": lambda: baseline.magnitude(gated, plan, limit),
    }
    for name, make in makers.items():
        if name not in kept:
            job.say(f"Baseline: {NAMES[name]}")
            kept[name] = _figures(job, make, figures)
            write_json(path, kept)
        if "refused" in kept[name]:
            job.say(f"Baseline: {NAMES[name]} is left out. {kept[name]['refused']}")
    times = {"seconds": figures["seconds"]}
    if "processor_seconds" in kept:
        times["processor_seconds"] = kept["processor_seconds"]
    learnt = {name: kept[name] for name in RIVALS}
    return {"cost": limit.what, "limit": limit.most, "pruned": times, **learnt}


def limit_of(budget: dict[str, float] | None, figures: dict[str, Any]) -> Limit:
    """What the small networks may cost: the pruned one's MACs, or parameters where these were budgeted alone.

    Args:
        budget: of the settings.
        figures: of the pruned network.
    """
    by_parameters = "params" in (budget or {}) and "macs" not in (budget or {})
    what: Cost = "parameters" if by_parameters else "macs"
    return Limit(what, int(figures[f"{what}_kept"]))


def over_seeds(seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means of the baselines over seeds.

    Args:
        seeds: figures of each seed.

    Returns:
        ``{"baseline": …}``, or nothing where there are none. A network that some seed lacks is there as that
        seed's reason; processor seconds of the fit are left out where a seed does not know them.
    """
    if any("baseline" not in seed for seed in seeds):
        return {}
    found = [seed["baseline"] for seed in seeds]
    refused = [one for one in found if "refused" in one]
    if refused:
        return {"baseline": refused[0]}
    limit = statistics.fmean(one["limit"] for one in found)
    means: dict[str, Any] = {"cost": found[0]["cost"], "limit": limit}
    for name in ("pruned", *RIVALS):
        members: list[dict[str, Any]] = [one[name] for one in found]
        reasons = [member for member in members if "refused" in member]
        common = set.intersection(*(set(member) for member in members))
        alike = [{key: member[key] for key in member if key in common} for member in members]
        means[name] = reasons[0] if reasons else measure.over_seeds(alike)
    return {"baseline": means}


def _plan(job: Job, seed: int) -> Plan:
    settings, train = job.settings, job.data.train
    assert settings.epochs is not None
    return Plan((train.x, train.y), settings.epochs, settings.batch_size, seed, job.model.recipe, job.device)


def _figures(job: Job, make: Callable[[], Rival], pruned: dict[str, Any]) -> dict[str, Any]:
    """Figures of a network, or why there is none."""
    try:
        rival = make().figures((job.data.test.x, job.data.test.y))
    except BayespruneError as problem:
        return {"refused": str(problem)}
    for what in ("parameters", "macs"):
        rival[f"{what}_percent"] = 100 * rival[what] / pruned[f"dense_{what}"]
    return rival


def _read(job: Job, path: Path, limit: Limit) -> dict[str, Any]:
    """What was learnt before for the same pruned network; an interrupted run goes on from there."""
    new: dict[str, Any] = {"cost": limit.what, "limit": limit.most}
    if not path.is_file():
        return new
    try:
        kept = read_json(path)
    except RunFolderError:
        kept = {}
    if list(_KEPT.problems(kept, "")) or {key: kept[key] for key in new} != new:
        job.say(f"{path}: is of another network, or was changed. It is made again.")
        return new
    return kept
