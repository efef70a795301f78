"""Prices from measured time: milliseconds that a unit adds to the forward pass of the layers that hold it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from bayesprune.errors import LatencyWarning, PriorError
from bayesprune.priors.checks import positive
from bayesprune.priors.naming import by_name
from bayesprune.priors.price import Flattening
from bayesprune.structure.copying import copy_of
from bayesprune.structure.graph import Analysis, analyse
from bayesprune.structure.groups import Group
from bayesprune.structure.layers import PRODUCERS
from bayesprune.structure.naming import as_names, check_names, check_order
from bayesprune.structure.timing import Timer, fastest_milliseconds

SHARES = (0.25, 0.5, 0.75, 1.0)
ROUNDS = 3
"""How often all widths take turns; the fastest turn counts, for other programs only ever make one slower."""

NOTICEABLE = 0.05
"""Share of its layers' time that a group must save over the measured widths, to count as faster."""


@dataclass(frozen=True)
class Latency:
    """What a unit of each group costs in time, on one device.

    Attributes:
        milliseconds: group → milliseconds a unit, least squares over the measured widths; 0 where fewer units
            are not measurably faster.
        dense: milliseconds of all layers with weights, in the dense network; of the whole network where it is
            no row of layers.
        measured: group → ((units, milliseconds of the layers that hold them, or of the network), ...).
        device: where it was measured.
    """

    milliseconds: Mapping[str, float]
    dense: float
    measured: Mapping[str, tuple[tuple[int, float], ...]]
    device: str

    def flattening(self, nats_per_millisecond: float, least: float = 0.1) -> Flattening:
        """The hyper-prior with these prices.

        Args:
            nats_per_millisecond: what a millisecond has to save in training log-likelihood, > 0.
            least: price of a unit that takes no time, nats, > 0: a price is never zero.

        Returns:
            For ``BernoulliGates(...)``.

        Raises:
            PriorError: a number that is not positive.
        """
        if not positive(nats_per_millisecond) or not positive(least):
            raise PriorError(
                f"flattening(nats_per_millisecond={nats_per_millisecond!r}, least={least!r}): both must be "
                "positive finite numbers. Give for example 100.0 and 0.1."
            )
        return Flattening({g: max(nats_per_millisecond * ms, least) for g, ms in self.milliseconds.items()})


def measure_latency(
    network: nn.Module,
    example: Tensor,
    device: str | torch.device,
    *,
    rounding: int | Mapping[str, int],
    timer: Timer | None,
    exclude: Iterable[str],
) -> Latency:
    """See ``Price.latency``."""
    exclude, timer = as_names(exclude), timer or fastest_milliseconds
    analysis, x = analyse(network, example, exclude), example.to(device)
    holders, in_row = _holders(analysis), analysis.structure.row is not None

    def timed(alive: dict[str, Tensor]) -> Callable[[], dict[str, float]]:
        narrow = copy_of(analysis.gated)
        narrow.cut_(alive)
        return partial(
            _times, narrow.plain(handed_over=True, saves=False).to(device).eval(), x, timer, in_row
        )

    dense = _fastest([timed({})])[0]
    slopes: dict[str, float] = {}
    measured: dict[str, tuple[tuple[int, float], ...]] = {}
    _check_rounding(rounding, analysis.groups, exclude)
    for group in analysis.groups:
        step = by_name(rounding, group.name, "rounding") if isinstance(rounding, Mapping) else rounding
        widths = _widths(group, 1 if group.optional else step)
        seen = _fastest([timed({group.name: torch.arange(group.size) < width}) for width in widths])
        held = holders[group.name] & dense.keys() or dense.keys()
        times = [(width, sum(of[name] for name in held)) for width, of in zip(widths, seen, strict=True)]
        measured[group.name] = tuple(times)
        slopes[group.name] = _slope(group, times, str(device))
    return Latency(slopes, sum(dense.values()), measured, str(device))


def _holders(analysis: Analysis) -> dict[str, set[str]]:
    """Group → the layers with weights that hold its units."""
    holders: dict[str, set[str]] = {group.name: set() for group in analysis.groups}
    for slot in analysis.slots:
        holders[slot.group].add(slot.tensor.rpartition(".")[0].replace(".", "_"))
    return holders


def _times(network: nn.Module, x: Tensor, timer: Timer, in_row: bool) -> dict[str, float]:
    """Layer with weights → milliseconds, of a row of layers; of any other network its own, as a whole."""
    if not in_row:
        return {"": timer(network, x)}
    times: dict[str, float] = {}
    with torch.no_grad():
        for name, layer in network.named_children():
            if type(layer) in PRODUCERS:
                times[name] = timer(layer, x)
            x = layer(x)
    return times


def _check_rounding(
    rounding: int | Mapping[str, int], groups: Sequence[Group], exclude: tuple[str, ...]
) -> None:
    if isinstance(rounding, Mapping):
        names = [group.name for group in groups]
        check_names("rounding", rounding, names, error=PriorError, besides=exclude)
        check_order("rounding", list(rounding), names, PriorError)


def _fastest(measure: Sequence[Callable[[], dict[str, float]]]) -> list[dict[str, float]]:
    """What each measures, in turns; of every time the shortest."""
    rounds = [[times() for times in measure] for _ in range(ROUNDS)]
    return [
        {name: min(turn[name] for turn in turns) for name in turns[0]} for turns in zip(*rounds, strict=True)
    ]


def _widths(group: Group, step: int) -> list[int]:
    """A few widths up to the whole group, rounded up to what the hardware computes in."""
    if isinstance(step, bool) or not isinstance(step, int) or step < 1:
        raise PriorError(
            f"rounding of group {group.name!r} is {step!r}: give a whole number of units, 1 or more."
        )
    rounded = {min(-(-int(share * group.size) // step) * step, group.size) for share in SHARES}
    return sorted({0} | rounded if group.optional else {max(width, 1) for width in rounded})


def _slope(group: Group, times: list[tuple[int, float]], device: str) -> float:
    """Milliseconds a unit by least squares; 0, with a warning, where narrower is not faster."""
    if len(times) < 2:
        return _warned(group, f"only {times[0][0]} units were measured", device)
    widths, milliseconds = (np.array(column, dtype=float) for column in zip(*times, strict=True))
    slope = float(np.polyfit(widths, milliseconds, 1)[0])
    saved = slope * float(widths[-1] - widths[0])
    if saved < NOTICEABLE * float(milliseconds[-1]):
        few, many = times[0], times[-1]
        found = f"{few[0]} units take {few[1]:.4g} ms and {many[0]} take {many[1]:.4g} ms"
        return _warned(group, found, device)
    return slope


def _warned(group: Group, found: str, device: str) -> float:
    warnings.warn(
        f"Group {group.name!r}: fewer units are not measurably faster on {device} ({found}), so its units "
        "get the least price. Time larger batches, lower rounding=, or price this group by MACs: "
        "bp.Price.from_cost(nats=..., compute=1.0).",
        LatencyWarning,
        stacklevel=5,
    )
    return 0.0
