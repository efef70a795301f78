"""Who a network learns from beside its targets: a network, several of them, or a posterior's draws."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bayesprune.errors import BayespruneError, LikelihoodError
from bayesprune.likelihoods.base import Likelihood
from bayesprune.likelihoods.parts import Part, part_of
from bayesprune.rows import Inputs, run
from bayesprune.structure.running import evaluating

BLOCK = 1000
"""Rows that a teacher is asked about at a time."""

GIVE = "give a network, a list of networks, what fit returned, a gated model, or a function of inputs"

SAME = "give a teacher of the same classes or columns, in the same order"


@dataclass(frozen=True)
class Member:
    """One voice of a teacher.

    Attributes:
        share: its weight in the mean, > 0; those of all members sum to one.
        outputs: from inputs (rows, ...) to what a network returns.
        module: that it computes with, whose mode, device and parameters are its own; None of a function.
        more: what tells it from others of the same module.
    """

    share: float
    outputs: Callable[[Inputs], Any]
    module: nn.Module | None = None
    more: str = ""


@runtime_checkable
class Teaches(Protocol):
    """Whatever says by itself which members it has, as gated models and fits do."""

    def as_teacher(self) -> Sequence[Member]:
        """Its members."""
        ...


class Teacher:
    """What a likelihood asks about rows. Copies share it, and no file ever holds it.

    Args:
        members: one or more; none in what was read from a file.
    """

    def __init__(self, members: Sequence[Member] = ()) -> None:
        self.members = tuple(members)

    @staticmethod
    def of(given: Any) -> Teacher:
        """A teacher in whichever form a user has it.

        Args:
            given: an ``nn.Module``; a function from inputs to outputs; a fit's result or a gated model, as
                the mean over draws of its guide; or a list of these, with equal weights.

        Raises:
            LikelihoodError: it is none of these.
        """
        return Teacher(_members(given, "teacher"))

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Teacher, ()

    @torch.no_grad()
    def __call__(self, inputs: Inputs, likelihood: Likelihood) -> Tensor:
        """Outputs, as one network would return them, without a gradient.

        Args:
            inputs: (rows, ...).
            likelihood: it says which part of the outputs is read, and how those of several are averaged.

        Returns:
            (rows, ...), on the device of the inputs.

        Raises:
            LikelihoodError: a member does not run on the rows, or returns something else; it is named.
        """
        if not self.members:
            raise LikelihoodError(
                "Distilled: the teacher was not saved with the model, and is asked here. To learn on, gate "
                "the network anew with bp.Distilled(likelihood, teacher); to count by targets alone, set "
                "gated.likelihood = gated.likelihood.plain."
            )
        blocks = [inputs] if len(inputs) <= BLOCK else inputs.split(BLOCK)
        return torch.cat([self._block(block, likelihood) for block in blocks])

    def _block(self, inputs: Inputs, likelihood: Likelihood) -> Tensor:
        said = [self._said(number, inputs, likelihood) for number in range(len(self.members))]
        if len(said) == 1:
            return said[0]
        if len({outputs.shape for outputs in said}) > 1:
            shapes = ", ".join(str(tuple(outputs.shape)) for outputs in said)
            raise LikelihoodError(
                f"Distilled: the teacher's members return outputs of shapes {shapes} for {len(inputs)} rows, "
                "and are averaged: give members of the same outputs."
            )
        shares = said[0].new_tensor([member.share for member in self.members])
        return likelihood.pooled(torch.stack(said), shares)

    def _said(self, number: int, inputs: Inputs, likelihood: Likelihood) -> Tensor:
        """What one member returns, on the device of the inputs."""
        member, place = self.members[number], self._place(number)
        there = _device(member.module)
        try:
            with evaluating(member.module) if member.module is not None else nullcontext():
                outputs = member.outputs(inputs if there is None else inputs.to(there))
        except torch.OutOfMemoryError:
            raise
        except (BayespruneError, RuntimeError, ValueError, TypeError, IndexError) as problem:
            reason = str(problem).partition("\n")[0].rstrip(".")
            raise LikelihoodError(
                f"{place} does not run on {len(inputs)} rows of {_told(inputs)}: {reason}. Give one that "
                "takes what the network that learns takes, in the same type, or a function: "
                "teacher=lambda x: …"
            ) from problem
        if not isinstance(outputs, Tensor):
            outputs = _part(outputs, likelihood.output, place)
        if not outputs.ndim or len(outputs) != len(inputs) or not outputs.is_floating_point():
            raise LikelihoodError(
                f"{place} returned shape {tuple(outputs.shape)} and type {outputs.dtype} for {len(inputs)} "
                "rows: it must return real outputs whose first dimension is the rows, as the network that "
                "learns does."
            )
        outputs = outputs if torch.finfo(outputs.dtype).bits >= 32 else outputs.float()
        said: Tensor = outputs.to(inputs.device)
        return said

    def _place(self, number: int) -> str:
        member = self.members[number]
        kind = type(member.module).__name__ if member.module is not None else "function"
        which = f" {number + 1} of {len(self.members)}" if len(self.members) > 1 else ""
        return f"Distilled: teacher{which}, a {kind},"

    def identity(self, said: Tensor | None = None) -> str:
        """A digest: of the members' layers and numbers; of functions by what they said.

        Args:
            said: (rows, ...), its outputs for all rows, if they are known.
        """
        found = hashlib.sha256()
        for member in self.members:
            found.update(f"{member.share} {member.more} ".encode())
            if member.module is not None:
                found.update(re.sub(r"0x[0-9a-f]+", "", repr(member.module)).encode())
                for name, value in member.module.state_dict().items():
                    if isinstance(value, Tensor):
                        found.update(name.encode() + _digest(value))
            elif said is not None:
                found.update(_digest(said))
        return found.hexdigest()[:16]


def _members(given: Any, place: str) -> list[Member]:
    if isinstance(given, nn.ModuleList | list | tuple):
        if not len(given):
            raise LikelihoodError(f"Distilled: {place} is an empty {type(given).__name__}: {GIVE}.")
        parts = [_members(part, f"{place}[{number}]") for number, part in enumerate(given)]
        return [Member(m.share / len(parts), m.outputs, m.module, m.more) for part in parts for m in part]
    if isinstance(given, type) or not (isinstance(given, Teaches) or callable(given)):
        raise LikelihoodError(f"Distilled: {place}={given!r} is no teacher: {GIVE}.")
    if isinstance(given, Teaches):
        return list(given.as_teacher())
    module = given if isinstance(given, nn.Module) else None
    if module is not None and getattr(module.forward, "__func__", None) is nn.Module.forward:
        raise LikelihoodError(
            f"Distilled: {place} is a {type(module).__name__}, which has no forward: {GIVE}."
        )
    _check_device(module, place)
    return [Member(1.0, partial(run, given), module)]


def _check_device(module: nn.Module | None, place: str) -> None:
    there = _device(module)
    if there is not None and there.type == "meta":
        raise LikelihoodError(
            f"Distilled: {place} is a {type(module).__name__} on device 'meta', which holds no numbers: load "
            "its weights on 'cpu' or where the network learns."
        )


def _part(outputs: Any, part: Part, place: str) -> Tensor:
    """The part that the likelihood reads of the network that learns, of a teacher's outputs."""
    try:
        found: Tensor = part_of(outputs, part, place)
        return found
    except LikelihoodError:
        reads = "one tensor" if part is None else f"output={part!r}"
        raise LikelihoodError(
            f"{place} returned a {type(outputs).__name__}, and the likelihood reads {reads}: take that part "
            "out, teacher=lambda x: network(x)['logits']."
        ) from None


def _device(module: nn.Module | None) -> torch.device | None:
    """Where a module computes; None where it holds nothing."""
    if module is None:
        return None
    return next((t.device for part in (module.parameters(), module.buffers()) for t in part), None)


def _digest(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return f"{tensor.dtype}{list(tensor.shape)}{zlib.crc32(flat.view(torch.uint8).numpy().data)}".encode()


def _told(inputs: Inputs) -> str:
    if isinstance(inputs, Tensor):
        return f"shape {tuple(inputs.shape[1:])} and type {inputs.dtype}"
    return inputs.told()


def problems_of(said: Tensor, outputs: Tensor) -> list[str]:
    """Why a teacher's outputs are not those of the network that learns; empty if they are.

    Args:
        said: (rows, ...), what the teacher says.
        outputs: (1 or more, ...), what the network returns.
    """
    if said.shape[1:] != outputs.shape[1:]:
        return [
            f"the teacher says {tuple(said.shape[1:])} numbers of a row, and the network "
            f"{tuple(outputs.shape[1:])}: {SAME}."
        ]
    strange = ~said.isfinite().reshape(len(said), -1).all(-1)
    if bool(strange.any()):
        row = int(strange.nonzero()[0])
        return [
            f"the teacher says {_first_strange(said[row])} of row {row}: mend or leave out what gives it; "
            "log-odds of classes that are ruled out must be finite too, such as −30."
        ]
    return []


def _first_strange(said: Tensor) -> float:
    return float(said[~said.isfinite()].flatten()[0])
