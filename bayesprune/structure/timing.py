"""How long a pass through a network takes: the shortest of many."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bayesprune.rows.call import Call
from bayesprune.structure.running import drawing_alike

Timer = Callable[[nn.Module, Tensor], float]
"""How a network, or a layer, is timed: (it, its input) → milliseconds of one forward pass."""

ENOUGH, FEWEST, MOST = 0.1, 10, 100
"""Seconds of passes that are enough for a shortest time, and how many they are at least and at most."""


def fastest_milliseconds(
    layer: nn.Module, x: Tensor, repeats: int = 15, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Shortest time of a forward pass, after a few that do not count: other programs only make one longer.

    Args:
        layer: what is timed.
        x: its input.
        repeats: how many passes count.
        clock: seconds since some moment.

    Returns:
        Milliseconds.
    """
    seconds = []
    with torch.no_grad():
        for _ in range(repeats + 3):
            _wait(x)
            started = clock()
            layer(x)
            _wait(x)
            seconds.append(clock() - started)
    return 1000 * min(seconds[3:])


def short_milliseconds(network: nn.Module, x: Tensor, clock: Callable[[], float] | None = None) -> float:
    """Shortest time of a forward pass of many: as many as a tenth of a second has room for, 10 to 100.

    Args:
        network: what is timed.
        x: its input.
        clock: seconds since some moment; by default ``own_clock``.

    Returns:
        Milliseconds.
    """
    clock = clock or own_clock(x)
    first = fastest_milliseconds(network, x, repeats=1, clock=clock) / 1000
    repeats = min(max(int(ENOUGH / first), FEWEST), MOST) if first > 0 else MOST
    return fastest_milliseconds(network, x, repeats=repeats, clock=clock)


def own_clock(x: Tensor) -> Callable[[], float]:
    """The clock for passes over an input: of this thread where it alone computes, else that on the wall.

    A thread's processor time stands still while other programs have its core. On a machine that does nothing
    else both are the same; on a busy one a pass that is longer than a scheduler's turn has no other time that
    could be told twice alike. Several threads, and devices, are waited for: there the wall's it has to be.

    Args:
        x: the input.
    """
    alone = x.device.type == "cpu" and torch.get_num_threads() == 1
    return time.thread_time if alone else time.perf_counter


def in_turns(networks: Sequence[nn.Module], inputs: Call, timer: Timer, rounds: int) -> list[float]:
    """Milliseconds of a pass through each of some networks, which take turns; of each the shortest.

    Args:
        networks: in eval mode.
        inputs: (rows, ...).
        timer: of a module and its one input.
        rounds: of turns.
    """
    with drawing_alike():
        turns = [[timed(network, inputs, timer) for network in networks] for _ in range(rounds)]
    return [min(times) for times in zip(*turns, strict=True)]


def timed(network: nn.Module, inputs: Call, timer: Timer) -> float:
    """Milliseconds of a pass.

    Args:
        network: in eval mode.
        inputs: (rows, ...).
        timer: of a module and its one input.
    """
    alone = inputs.alone
    if isinstance(alone, Tensor):
        return timer(network, alone)
    return timer(_Called(network, inputs), inputs.tensors[0])


class _Called(nn.Module):
    """A network of several inputs as one that has been given them."""

    def __init__(self, network: nn.Module, inputs: Call) -> None:
        super().__init__()
        self.network, self.inputs = network, inputs

    def forward(self, x: Tensor) -> Any:
        """Run it, whatever is given."""
        return self.inputs.on(self.network)


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
