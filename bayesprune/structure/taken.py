"""measure(): milliseconds and megabytes of a pass, and whether fewer multiplications made it any faster."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bayesprune.errors import LatencyWarning, SettingsError
from bayesprune.rows.call import Call
from bayesprune.rows.example import example_call
from bayesprune.structure.copying import copy_of
from bayesprune.structure.cost import count
from bayesprune.structure.memory import memory_of
from bayesprune.structure.running import check_plain
from bayesprune.structure.timing import Timer, in_turns, short_milliseconds

ROUNDS = 5
"""Turns of networks that are timed against each other."""

FELL, HALF = 0.9, 0.5
"""From which share of the multiplications on time is looked at, and the share of what they saved that time
must have saved too."""


@dataclass(frozen=True)
class Pass:
    """What a pass of inference through a network takes.

    Attributes:
        milliseconds: the shortest of many, in eval mode without gradients.
        megabytes: weights, and the most that is held beside them at once, in 10⁶ bytes; see ``bp.Budget``.
        macs: multiply-accumulates of one row.
        parameters: trainable numbers.
        batch: rows of the pass.
        device: where it ran.
        against: what it was compared with, if anything.
    """

    milliseconds: float
    megabytes: float
    macs: int
    parameters: int
    batch: int
    device: str
    against: Pass | None = None

    @property
    def time_share(self) -> float:
        """Milliseconds, as a share of what it was compared with; NaN where that is nothing."""
        return self.milliseconds / self.against.milliseconds if self.against else float("nan")

    @property
    def macs_share(self) -> float:
        """Multiply-accumulates, as a share of what it was compared with; NaN where that is nothing."""
        return self.macs / self.against.macs if self.against and self.against.macs else float("nan")


def measure(
    network: nn.Module,
    example: Any,
    *,
    batch: int | None = None,
    against: nn.Module | None = None,
    device: str | torch.device | None = None,
    timer: Timer | None = None,
) -> Pass:
    """Measure what a pass of inference takes, by itself or against a larger network.

    Multiply-accumulates are counted, and time is not in proportion to them: overheads, memory, and sizes that
    hardware has no kernel for come in between. So that nobody takes the one for the other, this is asked for
    by name, once, after a fit: a measurement in every fit would take time and hang on what else runs there.
    Networks are copied, and timed in turns; of each the shortest of several times ten to a hundred passes
    counts, on this thread's processor clock where PyTorch has one thread.

    Args:
        network: any module, such as ``bp.prune`` gives; left alone.
        example: (rows, ...), inputs, in any form that ``bp.gate`` takes; real ones, since time hangs on
            numbers too.
        batch: rows of the pass; the example is repeated, or cut; by default as many as it has.
        against: the network that it was before.
        device: where; by default where it is.
        timer: how time is measured: (network, its input) → milliseconds.

    Returns:
        What it takes, with what the other one takes.

    Raises:
        UnsupportedNetworkError: no network, or one that does not run on the example.
        SettingsError: a batch that is no whole number of rows.

    Warns:
        LatencyWarning: multiply-accumulates fell by a tenth or more, and time by less than half as much.

    Example:
        >>> import torch
        >>> import bayesprune as bp
        >>> dense, small = torch.nn.Linear(16, 64), torch.nn.Linear(16, 16)
        >>> by_size = lambda network, x: 0.001 * network.weight.numel()
        >>> found = bp.measure(small, torch.zeros(8, 16), against=dense, timer=by_size)
        >>> found.milliseconds, found.time_share, found.macs_share
        (0.256, 0.25, 0.25)
    """
    if batch is not None and (type(batch) is not int or batch < 1):
        raise SettingsError(
            f"batch={batch!r} must be a whole number of rows, at least 1: give for example 64."
        )
    networks = [network] if against is None else [network, against]
    for each in networks:
        check_plain(each, "measure")
    found = [_copy(each, device) for each in networks]
    inputs = [_rows(each, example, batch) for each in found]
    times = in_turns(found, inputs[0], timer or short_milliseconds, ROUNDS)
    passes = [
        _pass(each, own, milliseconds) for each, own, milliseconds in zip(found, inputs, times, strict=True)
    ]
    if against is None:
        return passes[0]
    result = Pass(**{**vars(passes[0]), "against": passes[1]})
    _warn(result)
    return result


def _copy(network: nn.Module, device: str | torch.device | None) -> nn.Module:
    twin = copy_of(network).eval()
    return twin if device is None else twin.to(device)


def _rows(network: nn.Module, example: Any, batch: int | None) -> Call:
    """The example as so many rows, where the network is."""
    call = example_call(network, example)
    place = next((p.device for p in network.parameters()), call.device)
    rows = batch or len(call)
    return call.mapped(lambda x: x.repeat(-(-rows // len(x)), *[1] * (x.ndim - 1))[:rows].to(place).clone())


def _pass(network: nn.Module, inputs: Call, milliseconds: float) -> Pass:
    cost, memory = count(network, inputs), memory_of(network, inputs)
    return Pass(milliseconds, memory / 1e6, cost.macs, cost.parameters, len(inputs), str(inputs.device))


def _warn(found: Pass) -> None:
    """Say so where multiplications fell and time did not."""
    dense = found.against
    assert dense is not None
    saved = 1 - found.macs_share
    if saved < 1 - FELL or 1 - found.time_share >= HALF * saved:
        return
    limit = dense.milliseconds * (found.time_share + found.macs_share) / 2
    warnings.warn(
        f"Multiply-accumulates fell to {100 * found.macs_share:.3g} %, and time to "
        f"{100 * found.time_share:.3g} % ({found.milliseconds:.3g} of {dense.milliseconds:.3g} ms for "
        f"{found.batch} row{'s' * (found.batch > 1)} on {found.device}). Ask for sizes that hardware "
        "computes in, bp.Budget(..., multiple_of=8), for time itself, "
        f"bp.Budget(latency_ms={limit:.3g}, batch={found.batch}), or measure a larger batch=.",
        LatencyWarning,
        stacklevel=3,
    )
