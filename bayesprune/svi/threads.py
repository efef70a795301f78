"""How many processor threads a computation takes: by the size of its work, never by what else runs.

PyTorch shares out every operation over all cores and waits at its end, and while it waits it spins: GNU's
OpenMP, which its Linux packages bring, turns 300,000 times before it sleeps. Where another program has taken
one of the cores, each of a step's dozens of small operations waits for the scheduler, with the other core
spinning. So a small network takes one thread, at any load: another number of threads sums in another order,
and would give another network. ``fit`` does so, and what runs a network many times after it: ``evaluate``,
``certify``, ``evidence``, draws of a posterior and ``diagnose``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

WORK = 2**30
"""Multiply-accumulates of a step's forward pass for which another thread is taken: about a tenth of a second
of a core, backward pass included, in which the ends of operations no longer count."""

FORWARD = 3
"""A pass that learns nothing is this many times less work: the backward pass takes two forward ones."""

_ASKED: ContextVar[int | None] = ContextVar("threads", default=None)


def threads_for(macs: int, rows: int, learns: bool = True) -> int:
    """Threads for steps of one size: one for each ``WORK``, at least one, at most PyTorch's own number.

    Args:
        macs: multiply-accumulates of the dense network, per row.
        rows: of a step's batch.
        learns: whether a backward pass follows.

    Returns:
        The number that was asked for where one was (``asked_threads``); else by size.

    Example:
        >>> threads_for(macs=2_293_000, rows=128)  # LeNet-5
        1
    """
    asked = _ASKED.get()
    work = WORK if learns else FORWARD * WORK
    return asked if asked is not None else min(max(macs * rows // work, 1), torch.get_num_threads())


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Let PyTorch compute on so many threads for a while; afterwards on as many as before.

    Args:
        count: at least 1.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def asked_threads(count: int | None) -> Iterator[None]:
    """Let all fits inside take a number of threads that was asked for, whatever their size.

    Args:
        count: at least 1; None leaves the choice to the fits.
    """
    token = _ASKED.set(count)
    try:
        yield
    finally:
        _ASKED.reset(token)
