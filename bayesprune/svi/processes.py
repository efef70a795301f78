r"""Several processes that train one model: gradients are averaged, states compared, noise is apart.

Process k of K sees n_k of a step's N rows. What is averaged is weighted by them, so that unequal shares are
the whole batch:

.. math:: g = \sum_k \frac{n_k}{N} g_k

That holds for the gradients of the weights, of the gates and of what a likelihood learns, and for the mean
negative log-likelihood; statistics of batch normalisation are averaged likewise, each process having
normalised by its own rows. Every process then takes the same step, and decides from the same numbers, to the
bit. Each meeting begins with a look whether all have come for the same thing at the same step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from bayesprune.errors import EndedElsewhereError, ProcessError, SettingsError
from bayesprune.gated import GatedModel

MEETINGS = (
    "the start", "a step", "a look at the states", "a removal", "the end", "a state to go on from",
    "rows of moves", "a move",
)  # fmt: skip
NONE = -1
"""Instead of a length: there is nothing."""


class Processes:
    """The processes of one training, as one of them sees them.

    Args:
        group: of two processes or more, this one among them.
        device: of the model.

    Attributes:
        rank: number of this process in the group.
        count: processes.
    """

    def __init__(self, group: dist.ProcessGroup, device: torch.device) -> None:
        self.group, self.device = group, device
        self.rank, self.count = dist.get_rank(group), dist.get_world_size(group)
        by_device = dist.get_backend_config(group)
        self._words = device if "gloo" not in by_device else torch.device("cpu")
        self._before: list[Tensor] = []

    @classmethod
    def of(cls, group: Any, device: torch.device) -> Processes | None:
        """By one rule: the group that is given, else the one that was initialised; None for one process.

        Args:
            group: a ``ProcessGroup``, or None.
            device: of the model.

        Raises:
            SettingsError: it is none, or this process is not in it.
        """
        if group is None:
            if not (dist.is_available() and dist.is_initialized()):
                return None
            group = dist.group.WORLD
        if group is dist.GroupMember.NON_GROUP_MEMBER:
            raise SettingsError(
                "processes= is a group that this process is not in: train on its members alone, or leave "
                "processes= out for all that were initialised."
            )
        if not isinstance(group, dist.ProcessGroup):
            raise SettingsError(
                f"processes={group!r} must be a process group, torch.distributed.new_group(…), or left out "
                "for all processes that were initialised."
            )
        return cls(group, device) if dist.get_world_size(group) > 1 else None

    # ---- a training

    def start_(self, gated: GatedModel, told: Mapping[str, Any]) -> None:
        """Make sure that all train the same, and begin where the first process is.

        Args:
            gated: the model; its parameters and buffers become those of process 0.
            told: name → plain value, what must be equal.

        Raises:
            ProcessError: something is not.
        """
        self.agree("the start", 0, {**told, **_form(gated)})
        with torch.no_grad():
            for tensor in gated.state_dict().values():
                self._broadcast_(tensor)

    def open_(self, gated: GatedModel, generator: torch.Generator, seed: int, step: int) -> None:
        """Before the first batch of a step: noise of its own, and buffers as they are.

        Args:
            gated: the model.
            generator: of the gates' noise; seeded anew, so that a state need not hold one for each process.
            seed: of the training.
            step: steps taken.
        """
        generator.manual_seed(self.seed_of(seed, step))
        self._before = [buffer.clone() for buffer in _statistics(gated)]

    def seed_of(self, seed: int, step: int) -> int:
        """A seed for a step, another in every process."""
        digest = hashlib.sha256(f"{seed}/{self.rank}/{step}".encode()).digest()
        return int.from_bytes(digest[:4], "little")

    @torch.no_grad()
    def average_(
        self, gated: GatedModel, step: int, rows: int, nll: Tensor, gradient: Tensor | None
    ) -> tuple[Tensor, Tensor | None, int]:
        """Average what all have seen in a step, weighted by rows: in one message.

        Args:
            gated: its ``.grad`` and the statistics in its buffers are changed in place.
            step: steps taken.
            rows: that this process has seen in the step.
            nll: scalar, their mean negative log-likelihood, nats.
            gradient: (units,), that of the living gates, or None.

        Returns:
            The mean negative log-likelihood and the gates' gradient of all rows, and how many they are.

        Raises:
            ProcessError: another process is elsewhere, or has ended.
        """
        held = [p for p in gated.parameters() if p.requires_grad and p is not gated.log_odds]
        buffers = _statistics(gated)
        some = nll.new_tensor([p.grad is not None for p in held])
        parts = [nll.reshape(1), nll.new_empty(0) if gradient is None else gradient, some]
        parts += [torch.zeros_like(p) if p.grad is None else p.grad for p in held]
        parts += [now - before for now, before in zip(buffers, self._before, strict=True)]
        kind = torch.float32
        for part in parts:
            kind = torch.promote_types(kind, part.dtype)
        flat = torch.cat([part.reshape(-1).to(kind) for part in parts])
        total = sum(self._meet("a step", step, rows, flat.numel()))
        flat.mul_(rows / total)
        self._safely(lambda: dist.all_reduce(flat, group=self.group))
        split = flat.split([part.numel() for part in parts])
        found = [value.view_as(part).to(part.dtype) for value, part in zip(split, parts, strict=True)]
        gradients, statistics = found[3 : 3 + len(held)], found[3 + len(held) :]
        for number, (parameter, value) in enumerate(zip(held, gradients, strict=True)):
            if parameter.grad is not None:
                parameter.grad = value  # a part of what was averaged: copying it would take as long as that
            elif bool(found[2][number] > 0):  # of another process's rows the loss does hang on it
                parameter.grad = value.clone()
        for buffer, before, change in zip(buffers, self._before, statistics, strict=True):
            buffer.copy_(before + change)  # what has not changed stays, to the bit
        return found[0].reshape(()), None if gradient is None else found[1], total

    @torch.no_grad()
    def mean(self, tensors: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
        """Tensors averaged, each process counting alike: of what a prior draws for itself."""
        known = [tensor for tensor in tensors if tensor is not None]
        if not known:
            return tuple(tensors)
        flat = torch.cat([tensor.reshape(-1).double() for tensor in known])
        self._safely(lambda: dist.all_reduce(flat, group=self.group))
        flat /= self.count
        values = iter(flat.split([t.numel() for t in known]))
        return tuple(None if t is None else next(values).view_as(t).to(t.dtype) for t in tensors)

    @torch.no_grad()
    def average_statistics_(self, gated: GatedModel, step: int) -> None:
        """Average what batch normalisation has taken afresh, each process over its own rows."""
        self._meet("the end", step, 0, 0)
        buffers = _statistics(gated)
        for buffer, value in zip(buffers, self.mean(buffers), strict=True):
            if value is not None:
                buffer.copy_(value)

    def compare(self, gated: GatedModel, velocity: Tensor, step: int) -> None:
        """Make sure that all are where this one is, to the bit.

        Args:
            gated: the model.
            velocity: (units of all groups,), of the gates.
            step: steps taken.

        Raises:
            ProcessError: units, gates or weights are others; they are named.
        """
        named = {name: value.detach() for name, value in gated.network.named_parameters()}
        sums = [value.double().sum() for value in named.values()]
        found = torch.stack(sums).tolist() if sums else []
        told = {"units": digest(gated.alive), "gates": digest(gated.log_odds), "velocity": digest(velocity)}
        weights = {f"sum of {name}": repr(value) for name, value in zip(named, found, strict=True)}
        self.agree("a look at the states", step, {**told, **weights})

    def agree(self, place: str, step: int, told: Mapping[str, Any]) -> None:
        """All say the same, or none goes on.

        Args:
            place: one of ``MEETINGS``.
            step: steps taken.
            told: name → plain value.

        Raises:
            ProcessError: something differs; names and values are told.
        """
        text = json.dumps(told, default=str).encode()
        others = [json.loads(part) for part in self.gather(text, place, step)]
        for number, other in enumerate(others):
            differs = [key for key in {**others[0], **other} if other.get(key) != others[0].get(key)]
            if differs:
                shown = "; ".join(f"{k}: {others[0].get(k)!r} and {other.get(k)!r}" for k in differs[:4])
                more = f" and {len(differs) - 4} more" if len(differs) > 4 else ""
                raise ProcessError(
                    f"At {place}, step {step}, processes 0 and {number} differ in {shown}{more}. All "
                    "processes of one training must be told the same: network, likelihood and its rows, "
                    "prior, recipe, steps, optimiser and its learning rates; only their batches are their "
                    "own. A training that has nothing to do with the others' takes a group of its own, "
                    "processes=torch.distributed.new_group([rank])."
                )

    def gather(self, own: bytes, place: str, step: int) -> list[bytes]:
        """Bytes of every process, in all.

        Args:
            own: those of this one.
            place: one of ``MEETINGS``.
            step: steps taken.
        """
        lengths = self._meet(place, step, len(own), 0)
        if not max(lengths):
            return [b""] * self.count
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        if own:
            padded[: len(own)] = torch.frombuffer(bytearray(own), dtype=torch.uint8)
        every = self._gather(padded)
        return [t[:n].numpy().tobytes() for t, n in zip(every, lengths, strict=True)]

    def send(
        self,
        make: Callable[[], tuple[bytes, ...]],
        parts: int,
        place: str = "a state to go on from",
        step: int = 0,
    ) -> tuple[bytes, ...]:
        """Bytes of process 0, in all.

        Args:
            make: called there alone.
            parts: how many it makes.
            place: one of ``MEETINGS``.
            step: steps taken.

        Raises:
            EndedElsewhereError: in the others, where it fails there.
        """
        made: tuple[bytes, ...] = (b"",) * parts
        problem: BaseException | None = None
        if self.rank == 0:
            try:
                made = make()
            except BaseException as caught:
                problem = caught
        length = NONE if problem is not None else max(len(part) for part in made)
        lengths = self._meet(place, step, length, 0)
        if problem is not None:
            raise problem
        if lengths[0] == NONE:
            raise EndedElsewhereError("Process 0 has failed, and says why; this one ends with it.")
        return tuple(self._send(part) for part in made)

    # ---- messages

    def _send(self, part: bytes) -> bytes:
        size = torch.tensor([len(part)], device=self._words)
        self._broadcast_(size)
        content = torch.zeros(int(size), dtype=torch.uint8, device=self._words)
        if self.rank == 0 and part:
            content.copy_(torch.frombuffer(bytearray(part), dtype=torch.uint8))
        if content.numel():
            self._broadcast_(content)
        return content.cpu().numpy().tobytes()

    def _meet(self, place: str, step: int, number: int, size: int) -> list[int]:
        """What everybody brings, after a look whether all have come for the same.

        Args:
            place: one of ``MEETINGS``.
            step: steps taken.
            number: that this process brings.
            size: of what is to be averaged.

        Raises:
            ProcessError: they have not.
        """
        own = torch.tensor([MEETINGS.index(place), step, number, size])
        every = [entry.tolist() for entry in self._gather(own)]
        for other, (what, at, _, much) in enumerate(every):
            if (what, at) != tuple(every[0][:2]):
                raise ProcessError(
                    f"Process 0 is at {MEETINGS[every[0][0]]} after {every[0][1]} steps, and process {other} "
                    f"at {MEETINGS[what]} after {at}: every process of a training must take as many steps, "
                    "and go through training.loss, step and finish alike. A DistributedSampler deals as many "
                    "batches to each."
                )
            if much != every[0][3]:
                raise ProcessError(
                    f"At {place}, step {step}, process 0 has {every[0][3]} numbers to average, and process "
                    f"{other} {much}: their models are no longer of one size. Change a model on all alike."
                )
        return [entry[2] for entry in every]

    def _gather(self, own: Tensor) -> list[Tensor]:
        own = own.to(self._words)
        every = [torch.empty_like(own) for _ in range(self.count)]
        self._safely(lambda: dist.all_gather(every, own, group=self.group))
        return [entry.cpu() for entry in every]

    def _broadcast_(self, tensor: Tensor) -> None:
        whole = tensor.contiguous()
        self._safely(lambda: dist.broadcast(whole, group=self.group, group_src=0))
        if whole is not tensor:
            tensor.copy_(whole)

    def _safely(self, message: Callable[[], Any]) -> None:
        try:
            message()
        except RuntimeError as problem:
            first = str(problem).partition("\n")[0]
            raise ProcessError(
                f"Process {self.rank} of {self.count} cannot reach the others ({first}): one of them has "
                "ended, or has taken another number of steps. What it said last tells why; go on from the "
                "last checkpoint or state, on all."
            ) from problem


def refuse_late(step: int) -> None:
    """Make sure that a training of one process is not one of several that met after it was made.

    Args:
        step: steps taken.

    Raises:
        ProcessError: it is.
    """
    if dist.is_available() and dist.is_initialized() and (count := dist.get_world_size()) > 1:
        raise ProcessError(
            f"At step {step + 1} there are {count} processes, which had not met yet when this training was "
            "made: each would prune a network of its own. Make it after torch.distributed."
            "init_process_group, or whatever of your framework calls that; or say that it trains alone, "
            "processes=torch.distributed.new_group([rank])."
        )


def digest(tensor: Tensor) -> str:
    """A few characters that differ where a bit does."""
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return hashlib.sha256(content).hexdigest()[:12]


def _statistics(gated: GatedModel) -> list[Tensor]:
    """The network's buffers of real numbers, among which batch normalisation's means and variances are."""
    return [buffer for buffer in gated.network.buffers() if buffer.is_floating_point()]


def _form(gated: GatedModel) -> dict[str, str]:
    """Name → type and shape of all that a model holds."""
    return {
        f"model/{name}": f"{value.dtype} {list(value.shape)}" for name, value in gated.state_dict().items()
    }
