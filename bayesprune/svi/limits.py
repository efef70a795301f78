"""Limits in milliseconds and megabytes: measured before the gates move, and met when they are decided."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from bayesprune.gated import GatedModel
from bayesprune.priors import CostGates
from bayesprune.priors.cost_gates import DENSE, END, KINDS
from bayesprune.priors.measured import Measured, cut, masks_of
from bayesprune.priors.reachable import check_reachable, limit_memory_
from bayesprune.rows import Inputs
from bayesprune.structure import ExpectedCost, minimal_masks
from bayesprune.structure.groups import close_over
from bayesprune.structure.kinds import least_sizes
from bayesprune.structure.timing import in_turns
from bayesprune.svi.fill import partners
from bayesprune.svi.fitter import WITHIN, Fitter
from bayesprune.svi.threads import using_threads

CLOSE, AIM = 0.05, 0.98
"""How far under its limit a network may end, as a share of it, and where in that window it is sought: what is
measured is less exact than counts, and does not change unit by unit."""

POINTS = 2
"""How many networks between the smallest and the dense one are timed, to put the table to scale."""

TRIES, FINE = 10, 0.02
"""How many networks are sought at most when gates are decided, and how far apart their budgets are."""

ROUNDS = 5
"""How often a network's time is taken; the shortest counts."""

EDGE = 0.1
"""How far from both ends of what is known the next network is sought, as a share of what lies between."""

LEAD = 0.05
"""Of limits that lie this close to the hardest in the model, all are held for what decides."""


def calibrate_(gated: GatedModel, prior: CostGates, least: int, rows: Inputs | None = None) -> None:
    """Measure the dense network and smaller ones, and give the models their budgets.

    Args:
        gated: the dense model.
        prior: its prior; its buffers are set.
        least: units that every group keeps.
        rows: (some, ...), inputs to time networks on: how long pooling and look-ups take hangs on numbers.

    Raises:
        PriorError: the smallest network takes more than a limit.

    Warns:
        BudgetWarning: the dense network takes no more than a limit.
    """
    measured, network = prior.measured, gated.network
    assert measured is not None and prior.budget is not None
    if "memory_mb" in measured.kinds and least > 1:
        limit_memory_(prior, network, least)
    if "latency_ms" in measured.kinds:
        with _as_asked(measured, gated):
            prior.table.copy_(measured.profile(network, rows))
            prior.whole.copy_(measured.whole(prior.table))
            smallest = minimal_masks(network, least_sizes(prior.kinds, least) or least)
            share = _Line(gated, prior, smallest, rows).share()
        if share == share:
            prior.budget[len(KINDS)] = share
        else:
            prior.free_("latency_ms")
    probs = gated.inclusion_prob().detach().double()
    prior.start.copy_(prior.shares(ExpectedCost(prior.costed(network), probs.device), probs))


@contextmanager
def _as_asked(measured: Measured, gated: GatedModel) -> Iterator[None]:
    """The threads that times are meant for."""
    on_processor = gated.log_odds.device.type == "cpu"
    with using_threads(measured.threads) if on_processor else nullcontext():
        yield


class _Line:
    """Time by what the model says, between networks that were timed."""

    def __init__(
        self, gated: GatedModel, prior: CostGates, smallest: Mapping[str, Tensor], rows: Inputs | None
    ) -> None:
        assert prior.measured is not None
        self.gated, self.prior, self.measured, self.smallest = gated, prior, prior.measured, smallest
        self._costs = ExpectedCost(prior.costed(gated.network), prior.dense.device)
        self._inputs = gated.network.batch(self.measured.batch, rows)
        self.limit = self.measured.limit("latency_ms")

    def share(self) -> float:
        """The share of the model's time at which the limit lies; NaN where the dense network is below it."""
        dense, smallest = self._times({}, self.smallest)
        check_reachable(self.prior, "latency_ms", dense, smallest)
        if dense <= self.limit:
            return float("nan")
        points = [(self._model(self.smallest), smallest), (1.0, dense)]
        for _ in range(POINTS):
            keep = self._near(self._between(points))
            (time,) = self._times(keep)
            points.append((self._model(keep), time))
        return self._between(points)

    def _times(self, *keeps: Mapping[str, Tensor]) -> list[float]:
        """Milliseconds of the network cut to each, in turns; of each the shortest."""
        networks = [cut(self.gated.network, keep) for keep in keeps]
        return in_turns(networks, self._inputs, self.measured.timer, ROUNDS)

    def _model(self, keep: Mapping[str, Tensor]) -> float:
        probs = torch.cat([keep[group.name].double() for group in self.gated.groups])
        return float(self.prior.shares(self._costs, probs.to(self.prior.dense.device))[len(KINDS)])

    def _between(self, points: list[tuple[float, float]]) -> float:
        """Where the straight line between the two nearest points meets the limit."""
        below = max(point for point in points if point[1] <= self.limit)
        above = min(point for point in points if point[1] > self.limit and point[0] > below[0])
        rise = (self.limit - below[1]) / (above[1] - below[1])
        return below[0] + rise * (above[0] - below[0])

    def _near(self, share: float) -> Mapping[str, Tensor]:
        """A network of which about that share is left by the model, all of its groups alike."""
        few, many = 0.0, 1.0
        for _ in range(12):
            middle = (few + many) / 2
            within = self._model(self._alike(middle)) <= share
            few, many = (middle, many) if within else (few, middle)
        return self._alike(few)

    def _alike(self, share: float) -> Mapping[str, Tensor]:
        groups = self.gated.groups
        keep = {
            g.name: torch.ones_like(mask) if g.optional else mask | self.smallest[g.name]
            for g, mask in zip(groups, masks_of(groups, share).values(), strict=True)
        }
        return close_over(self.gated.network.slots, keep)


def follow_(
    gated: GatedModel, prior: CostGates, keep: Tensor, slack: float, rows: Inputs | None = None
) -> bool:
    """Measure the network that a removal would leave, and bring the models to what it takes.

    A model that was put to scale by other networks may be far off one that has lost a whole section. What is
    removed never comes back: so it is looked before.

    Args:
        gated: the model; only looked at.
        prior: its prior; the budgets of what is measured are set.
        keep: (units of all groups,), bool, closed: what would stay.
        slack: how far above its limits a network has to stay, as a factor.
        rows: (some, ...), inputs to time it on.

    Returns:
        Whether it would stay so far above one of its limits.
    """
    measured = prior.measured
    assert measured is not None and prior.budget is not None
    with _as_asked(measured, gated):
        values = measured.measure(gated.network, gated.by_group(keep), rows=rows).tolist()
    costs = ExpectedCost(prior.costed(gated.network))
    more = costs(gated.by_group(keep.double())).more
    left = (measured.of_model(more) / prior.whole.cpu()).tolist()
    above = False
    for kind, (value, limit) in enumerate(zip(values, measured.limits, strict=True)):
        at = len(KINDS) + kind
        if not bool(prior.budget[at].isnan()):
            above |= value >= slack * limit
            share = _on_line(left[kind], value / limit, _dense(prior, kind), 1.0)
            prior.budget[at] = min(share, 1.0)
    return above


def _dense(prior: CostGates, kind: int) -> float:
    """What the dense network takes of a limit, as measured."""
    assert prior.measured is not None
    return float(prior.seen[kind, DENSE]) / prior.measured.limits[kind]


def _on_line(left: float, taken: float, dense: float, aim: float) -> float:
    """The share of the model at which a share of the limit is expected: on the line between a network and the
    dense one, whose start, where nothing is left, is no less than nothing.

    Args:
        left: of the network, by the model.
        taken: of the limit, by the network.
        dense: of the limit, by the dense network.
        aim: the share of the limit.
    """
    start = taken - left * (dense - taken) / (1 - left) if left < 1 else 0.0
    start = min(max(start, 0.0), aim / 2, taken / 2)
    return left * (aim - start) / (taken - start)


Point = tuple[float, float]
"""A factor on a budget, and what the network that comes of it takes of the limit, as measured."""

Decide = Callable[[Tensor], tuple[Tensor, Fitter]]
"""Factors on all budgets, (costs,) → the units to keep, and what knows the budgets so scaled."""


class Meeting:
    """The search for the network whose measured time and memory are at their limits.

    The model's budget is moved, and units chosen by it, until the network that comes out is measured to be in
    the window below its limits: first by the line through what was measured and the dense network; then by
    that between the nearest networks below and above the limit, and inside of these.

    Args:
        gated: the model; only looked at.
        prior: its prior.
        decide: chooses units.
        rows: (some, ...), inputs to time networks on.
    """

    def __init__(
        self, gated: GatedModel, prior: CostGates, decide: Decide, rows: Inputs | None = None
    ) -> None:
        assert prior.measured is not None and prior.budget is not None
        self.gated, self.prior, self.decide, self.measured = gated, prior, decide, prior.measured
        self.rows = rows
        self.budget = prior.budget.cpu()
        self.kinds = [k for k in range(len(self.measured.kinds)) if self._budget(k) == self._budget(k)]
        self._low: dict[int, Point] = {}
        self._high: dict[int, Point] = {}
        self._known: dict[bytes, list[float]] = {}

    def _budget(self, kind: int) -> float:
        return float(self.budget[len(KINDS) + kind])

    def best(self) -> Tensor:
        """(units of all groups,), bool, closed: of all networks tried the one that comes closest from below;
        the one that is least above, where none was below.
        """
        scale = torch.ones_like(self.budget)
        best: tuple[tuple[bool, float], Tensor] | None = None
        for _ in range(TRIES):
            keep, fitter = self.decide(scale)
            taken = self.taken(keep)
            most = max((taken[kind] for kind in self.kinds), default=0.0)
            worth = (most <= 1, most if most <= 1 else -most)
            if best is None or worth > best[0]:
                best = worth, keep
            if self.close(taken, fitter, keep) or not self._move_(scale, taken, fitter, keep):
                break
        assert best is not None
        keep = self._filled(best[1], fitter) if best[0][0] and not self.prior.kinds else best[1]
        self.prior.seen[:, END] = self.prior.seen.new_tensor(self.values(keep))
        return keep

    def _filled(self, keep: Tensor, fitter: Fitter) -> Tensor:
        """More units back, group by group, as far as they are measured to fit.

        Where hardware computes in blocks the unit that begins one is dear, and the others of it are free: the
        models know of none, and a choice by them leaves room.

        Args:
            keep: (units of all groups,), bool, closed, below all limits.
            fitter: knows gains, and the budgets of what is counted.
        """
        absent, most = self.gated.alive.cpu() & ~keep, len(self._known) + TRIES
        for part in self.gated.slices().values():
            units = part.start + absent[part].nonzero().squeeze(1)
            units = units[fitter.gain[units].argsort(descending=True, stable=True)]
            while len(units) and len(self._known) < most and not self.close(self.taken(keep), fitter, keep):
                larger = keep.clone()
                for unit in units.tolist():  # with who has to be there for it to be read
                    larger[[unit, *partners(fitter, self.gated.alive.cpu(), unit)]] = True
                closed = fitter.close(larger)
                if closed is not None and fitter.counted(closed) <= 1 and self._fits(closed):
                    keep = closed
                    break
                units = units[: len(units) // 2]
        return keep

    def _fits(self, keep: Tensor) -> bool:
        taken = self.taken(keep)
        return all(taken[kind] <= 1 for kind in self.kinds)

    def taken(self, keep: Tensor) -> list[float]:
        """Measured time and memory, as shares of their limits."""
        return [value / limit for value, limit in zip(self.values(keep), self.measured.limits, strict=True)]

    def values(self, keep: Tensor) -> list[float]:
        """Measured milliseconds and megabytes; each network is measured once."""
        key = keep.numpy().tobytes()
        if key not in self._known:
            with _as_asked(self.measured, self.gated):
                kept = self.gated.by_group(keep)
                found = self.measured.measure(self.gated.network, kept, ROUNDS, rows=self.rows)
            self._known[key] = found.tolist()
        return self._known[key]

    def close(self, taken: list[float], fitter: Fitter, keep: Tensor) -> bool:
        """Whether limits are met, and one of them is used up, or a share of what is counted."""
        if any(taken[kind] > 1 for kind in self.kinds):
            return False
        used = any(taken[kind] >= 1 - CLOSE for kind in self.kinds)
        return used or fitter.counted(keep) >= 1 - WITHIN

    def _move_(self, scale: Tensor, taken: list[float], fitter: Fitter, keep: Tensor) -> bool:
        """Move the factors of the limits that decide; False where there is no way to go."""
        over, ratios = [kind for kind in self.kinds if taken[kind] > 1], fitter.measured(keep)
        hardest = max([fitter.counted(keep), *(ratios[kind] for kind in self.kinds)])
        moved = over or [kind for kind in self.kinds if ratios[kind] >= hardest - LEAD]
        if not over and torch.equal(keep, self.gated.alive.cpu()):
            return False
        for kind in moved:
            at = len(KINDS) + kind
            point = float(scale[at]), taken[kind]
            if kind in over:
                self._high[kind] = min(self._high.get(kind, point), point)
            else:
                self._low[kind] = max(self._low.get(kind, point), point)
            if kind in self._low and kind in self._high:
                scale[at] = self._between(kind)
            else:
                left = ratios[kind] * point[0]  # by the model, of the budget as it was given
                scale[at] = self._beyond(kind, point, left)
        return any(self._apart(kind) for kind in moved)

    def _apart(self, kind: int) -> bool:
        """Whether there may be another network between those that are nearest to the limit."""
        if kind not in self._low or kind not in self._high:
            return True
        return self._high[kind][0] > (1 + FINE) * self._low[kind][0]

    def _beyond(self, kind: int, point: Point, left: float) -> float:
        """Where the limit is expected while there are networks on one of its sides alone."""
        dense, budget = _dense(self.prior, kind), self._budget(kind)
        sought = _on_line(left * budget, point[1], dense, AIM) / budget
        step = 1 + WITHIN
        return max(sought, point[0] * step) if kind in self._low else min(sought, point[0] / step)

    def _between(self, kind: int) -> float:
        """Where the line between the nearest networks on both sides meets the limit, not at its ends."""
        (low, below), (high, above) = self._low[kind], self._high[kind]
        part = (AIM - below) / (above - below)
        return low + min(max(part, EDGE), 1 - EDGE) * (high - low)
