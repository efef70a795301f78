"""`torchrun … -m bayesprune run …`: all processes learn together; the first one reads, claims and writes.

Each process runs the same command. The first makes everything ready, and tells the others what it found; then
all build the model and fit it, and what follows a fit is the first one's alone, while the others wait. One
process speaks: whoever fails first says so, and the others, who fail for want of it, end without a word.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import click
import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from bayesprune.cli.streams import RANK, WORLD_SIZE
from bayesprune.errors import EndedElsewhereError, ProcessError, SettingsError
from bayesprune.svi.processes import Processes

PATIENCE = timedelta(days=365)
"""The others wait while the first one draws from a posterior, or trains a baseline; that a process has ended
is noticed at once."""
PLACE = ("MASTER_ADDR", "MASTER_PORT")
FAILED, INTERRUPTED = 2, 130


class Together:
    """The processes of a run, as one of them sees them; a run of one process has nobody to tell.

    Args:
        processes: of the run, or None for one.
    """

    def __init__(self, processes: Processes | None = None) -> None:
        self._processes = processes

    @property
    def leads(self) -> bool:
        """Whether this process is the first."""
        return self._processes is None or self._processes.rank == 0

    def first(self, make: Callable[[], Any]) -> Any:
        """What the first process makes, in all: a plain value.

        Args:
            make: called there alone.
        """
        if self._processes is None:
            return make()
        (text,) = self._processes.send(lambda: (json.dumps(make()).encode(),), parts=1)
        return json.loads(text)

    def agree(self, told: dict[str, Any]) -> None:
        """Make sure that all are ready, and have found the same.

        Args:
            told: name → plain value.

        Raises:
            ProcessError: something differs, or a process has ended.
        """
        if self._processes is not None:
            self._processes.agree("the start", 0, told)

    def total(self, value: float) -> float:
        """The sum over all processes."""
        if self._processes is None:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total, group=self._processes.group)
        return float(total)


@contextmanager
def together() -> Iterator[Together]:
    """Meet the processes that ``torchrun`` has started beside this one, if there are any.

    Raises:
        SettingsError: the environment speaks of several, and does not say where they meet.
        click.exceptions.Exit: this process has failed, and another has said why.
    """
    count = _number(WORLD_SIZE, 1)
    if count == 1:
        yield Together()
        return
    missing = [name for name in (RANK, *PLACE) if not os.environ.get(name)]
    if missing:
        raise SettingsError(
            f"{WORLD_SIZE}={count} in the environment speaks of {count} processes, and {', '.join(missing)} "
            f"is not there, by which they would meet. Start them by torchrun --nproc-per-node {count} -m "
            f"bayesprune run …, or unset {WORLD_SIZE}."
        )
    rank = _number(RANK, 0)
    try:
        store = next(rendezvous("env://"))[0]
    except RuntimeError as problem:
        place = ":".join(os.environ[name] for name in PLACE)
        first = str(problem).partition("\n")[0]
        raise ProcessError(
            f"Process {rank} of {count} does not find the others at {place} ({first}): start all of them, "
            "and let that address be one that each can reach."
        ) from None
    try:
        if torch.cuda.is_available():
            torch.cuda.set_device(_number("LOCAL_RANK", 0) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=count)
        waiting = dist.new_group(backend="gloo", timeout=PATIENCE)
        yield Together(Processes.of(waiting, torch.device("cpu")))
    except BaseException as problem:
        if not isinstance(problem, EndedElsewhereError) and _speaks(store, rank):
            raise
        code = INTERRUPTED if isinstance(problem, KeyboardInterrupt) else FAILED
        raise click.exceptions.Exit(getattr(problem, "exit_code", code)) from problem
    dist.destroy_process_group()


def check_devices() -> None:
    """Make sure that every process of this machine has a CUDA device of its own.

    Raises:
        SettingsError: there are fewer.
    """
    here, devices = _number("LOCAL_WORLD_SIZE", 1), torch.cuda.device_count()
    if here > devices:
        raise SettingsError(
            f"{here} processes on this machine, and {devices} CUDA device{'s' * (devices > 1)}: each takes "
            f"one of its own. Give --nproc-per-node {devices}, or --device cpu."
        )


def _speaks(store: Any, rank: int) -> bool:
    """Whether this process is the first to fail, which alone says why."""
    try:
        first = store.compare_set("bayesprune/failed", "", str(rank))
    except RuntimeError:  # whoever held the store has ended: the first process, which has spoken
        return rank == 0
    return int(first) == rank


def _number(name: str, default: int) -> int:
    """A whole number of the environment.

    Raises:
        SettingsError: it is none.
    """
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise SettingsError(
            f"{name}={text!r} in the environment is no whole number, as torchrun sets it: unset it."
        )
    return int(text)
