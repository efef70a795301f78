"""Kinds of groups: which end with the same number of units, and which numbers these may be."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesprune.structure.expected import Costed
from bayesprune.structure.groups import Group


@dataclass(frozen=True)
class Kind:
    """Groups that keep the same number of units: a multiple of the step, or all of them.

    Groups of several sizes keep the same share: heads of width 64 and a stream of 12 · 64 channels have the
    number 12, of which each is one head and 64 channels.

    Attributes:
        groups: their names.
        size: the number in the dense network: the greatest common divisor of the groups' sizes.
        step: what the number is a multiple of, unless it is the size.
        times: units of each group for each of the number; nothing where all have one.
    """

    groups: tuple[str, ...]
    size: int
    step: int
    times: tuple[int, ...] = ()

    def of(self, name: str) -> int:
        """Units of a group for each of the kind's number."""
        return self.times[self.groups.index(name)] if self.times else 1

    def sizes(self, least: int, most: int) -> list[int]:
        """The numbers that the kind may have, in order.

        Args:
            least: of them, as far as there are so many.
            most: of them.
        """
        least = min(least, self.size)
        steps = range(self.step, self.size, self.step)
        return [n for n in (*steps, self.size) if least <= n <= most]

    def up(self, number: int) -> int:
        """The least number allowed that is not below another."""
        return min(-(-number // self.step) * self.step, self.size)


def kinds(network: Costed, same: bool | Sequence[Sequence[str]], multiple_of: int) -> tuple[Kind, ...]:
    """The kinds of a network's groups, sections left out.

    Args:
        network: the dense network.
        same: whether groups of one ``role`` and size are one kind, or names of groups that are one, beyond
            these, in shares where their sizes differ; False where each group is a kind of its own.
        multiple_of: what a layer's rows and columns shall be a multiple of. A unit may have several of them
            (a head has its width, a filter its features behind a flatten): then fewer units make a multiple.

    Returns:
        Kinds in the order of their first groups.
    """
    groups = [group for group in network.groups if not group.optional]
    keys = {group.name: (group.name, 0) for group in groups}
    if same is not False:
        keys = {group.name: (role(group.name), group.size) for group in groups}
    for number, names in enumerate(same if not isinstance(same, bool) else ()):
        keys |= {name: (f"/{number}", 0) for name in names}
    members: dict[tuple[str, int], list[Group]] = defaultdict(list)
    for group in groups:
        members[keys[group.name]].append(group)
    steps = _steps(network, multiple_of)
    return tuple(_kind(of, [steps.get(group.name, multiple_of) for group in of]) for of in members.values())


def _kind(groups: Sequence[Group], steps: Sequence[int]) -> Kind:
    """The kind of some groups, each with the step of its own units."""
    size = math.gcd(*(group.size for group in groups))
    times = tuple(group.size // size for group in groups)
    step = math.lcm(*(step // math.gcd(step, n) for step, n in zip(steps, times, strict=True)))
    return Kind(tuple(group.name for group in groups), size, step, times if max(times) > 1 else ())


def role(name: str) -> str:
    """A group's name without the numbers of the repeated layers that it is in.

    Args:
        name: module names joined by ``_``. The last of them is the layer's own: ``0`` and ``2`` of a row of
            layers are two roles.

    Example:
        >>> role("encoder_layer_11_intermediate_dense"), role("layers_0_fc1"), role("conv_2")
        ('encoder_layer_*_intermediate_dense', 'layers_*_fc1', 'conv_2')
    """
    *containers, layer = name.split("_")
    return "_".join([*("*" if part.isdigit() else part for part in containers), layer])


def least_sizes(kinds: Iterable[Kind], least: int) -> dict[str, int]:
    """Group → the fewest units that its kind allows.

    Args:
        kinds: of a network.
        least: units that every group keeps, as far as it has so many.
    """
    fewest = {kind: max(-(-least // kind.of(name)) for name in kind.groups) for kind in kinds}
    numbers = {kind: kind.sizes(number, kind.size)[0] for kind, number in fewest.items()}
    return {name: number * kind.of(name) for kind, number in numbers.items() for name in kind.groups}


def allowed(kinds: Iterable[Kind], kept: Mapping[str, Tensor]) -> bool:
    """Whether groups have sizes that their kinds allow; groups that went with their sections have none.

    Args:
        kinds: of the network.
        kept: group → (size,), bool.
    """
    for kind in kinds:
        numbers = {int(kept[name].sum()) / kind.of(name) for name in kind.groups} - {0}
        if len(numbers) > 1 or any(number != kind.up(math.ceil(number)) for number in numbers):
            return False
    return True


def _steps(network: Costed, multiple_of: int) -> dict[str, int]:
    """Group → number of units whose rows and columns are multiples, wherever layers make or read them.

    Of what belongs to a head and is no row or column of its layers, as a table of its biases or a
    temperature, there may be any number.
    """
    steps: dict[str, int] = {}
    for term in network.terms():
        for slot in term.slots if term.parameters else ():
            if not (slot.reads or slot.dim == 0) or term.shape.numel() == term.shape[slot.dim]:
                continue
            widths = torch.bincount(slot.unit_ids[slot.unit_ids >= 0])
            step = multiple_of // math.gcd(multiple_of, *widths.tolist())
            steps[slot.group] = math.lcm(steps.get(slot.group, 1), step)
    return steps
