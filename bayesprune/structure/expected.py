"""What a network under random gates costs on average: exact, and differentiable in their probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesprune.structure.groups import WHOLE, Group, Slot, key_of
from bayesprune.structure.terms import Term

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Expected:
    """Average size of a network whose units are there or not.

    Attributes:
        parameters: scalar, expected trainable numbers.
        macs: scalar, expected multiply-accumulates of one row.
        more: (numbers in ``Term.more``,), the expected sums of those.
    """

    parameters: Tensor
    macs: Tensor
    more: Tensor


class ExpectedCost:
    r"""Expected parameters and multiply-accumulates of a network under independent gates z_u ~ Bern(θ_u).

    An entry of a tensor stays when all units that own it do, one along each owned dimension, or several (a
    filter and its flattened feature both own a column of the layer that reads them):

    .. math:: \mathbb{E}[\mathrm{numel}(W)]
              = \sum_{e \in W} \prod_{u \in \mathrm{owners}(e)} \theta_u,
              \qquad \mathbb{E}[\mathrm{MACs}]
              = \sum_l \mathrm{positions}_l\, \mathbb{E}[\mathrm{numel}(W_l)],

    a product over *distinct* owners, so both are multilinear in θ, and ∂/∂θ_u is exactly what unit u
    adds with all others as they are. The sum is taken dimension by dimension, ∏ over dimensions of
    Σ over an index; only dimensions that share a group are summed over together.

    Not included are the deaths that follow from others: a filter none of whose flattened features is still
    read is cut as well (``close_over``). So this is the expected size of what the gates leave, an upper bound
    on that of what a cut leaves, and equal to it wherever every unit that is there has a reader.
    Derived here from the slots (for plain layers: Guenter & Sideris, arXiv 2411.09127), and tested by
    enumeration.

    Args:
        network: as it is now; build anew after a cut.
        device: where the probabilities will be.

    Example:
        >>> import torch
        >>> from bayesprune.structure import ExpectedCost
        >>> from bayesprune.structure.graph import analyse
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Linear(2, 3))
        >>> gated = analyse(network, torch.ones(1, 4)).gated
        >>> cost = ExpectedCost(gated)({"input": torch.full((4,), 0.5), "0": torch.tensor([1.0, 0.5])})
        >>> cost.macs.item(), cost.parameters.item()  # 2 · 1.5 + 1.5 · 3, and biases 1.5 + 3
        (7.5, 12.0)
    """

    def __init__(self, network: Costed, device: torch.device | str = "cpu") -> None:
        self.slots: tuple[Slot, ...] = network.slots
        self._add(network.terms(), network.groups, device)

    @classmethod
    def of(cls, terms: Iterable[Term], groups: tuple[Group, ...]) -> ExpectedCost:
        """The expected cost of given terms.

        Args:
            terms: whose sum is the cost.
            groups: all groups of the network.
        """
        cost = cls.__new__(cls)
        cost.slots = ()
        cost._add(terms, groups, "cpu")
        return cost

    def _add(self, terms: Iterable[Term], groups: tuple[Group, ...], device: torch.device | str) -> None:
        """Terms with the same owners are counted together."""
        sizes = self._sizes = {group.name: group.size for group in groups}
        totals: dict[Any, tuple[Term, Floats]] = {}
        terms = list(terms)
        width = 2 + max((len(term.more) for term in terms), default=0)
        for term in terms:
            free = math.prod(n for dim, n in enumerate(term.shape) if all(s.dim != dim for s in term.slots))
            key = tuple((s.dim if s.dim >= 0 else 0, s.group, key_of(s.unit_ids), s.dim == WHOLE)
                        for s in term.slots)  # fmt: skip
            first, sums = totals.get(key, (term, np.zeros(width)))
            numbers = (term.parameters, term.macs, *term.more)
            totals[key] = first, sums + free * np.array(numbers + (0.0,) * (width - len(numbers)))
        self._owned = [_Owned.of(term.slots, sizes, device) for term, _ in totals.values()]
        weights = np.array([sums for _, sums in totals.values()]).reshape(-1, width)
        self._weights = torch.from_numpy(weights)

    def __call__(self, inclusion_prob: Mapping[str, Tensor]) -> Expected:
        """The expected cost.

        Args:
            inclusion_prob: group → (group.size,), probability that each original unit is there; what is given
                for removed units does not matter. All in one dtype: use float64 where sums have to be exact.

        Returns:
            Scalars in that dtype, attached to the graph of the probabilities.
        """
        like = next(iter(inclusion_prob.values()))
        numbers = torch.stack([owned(inclusion_prob) for owned in self._owned])
        sums = numbers @ self._weights.to(like)
        return Expected(sums[0], sums[1], sums[2:])

    def of_one_unit(self) -> dict[str, tuple[float, float]]:
        """Group → parameters and multiply-accumulates that one unit adds where all are there, on average.

        That is the mean of ∂/∂θ over the group at θ = 1, which takes counting alone. Groups that own nothing
        are left out.
        """
        found: dict[str, tuple[float, float]] = {}
        for owned, (parameters, macs, *_) in zip(self._owned, self._weights.tolist(), strict=True):
            for group, share in owned.shares(self._sizes):
                before = found.get(group, (0.0, 0.0))
                found[group] = before[0] + share * parameters, before[1] + share * macs
        return found


class Costed(Protocol):
    """A network whose cost is a sum of terms."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups of the dense network."""

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Where the units that are left sit; another object after every cut."""

    def terms(self) -> Iterable[Term]:
        """What its cost is the sum of, now."""

    def macs(self) -> int:
        """Multiply-accumulates of one row, now."""

    def parameter_count(self) -> int:
        """Trainable numbers, now."""


@dataclass(frozen=True)
class _Factor:
    """θ of one slot's units along the dimensions of its block; 1 where another slot has counted the unit."""

    group: str
    ids: Tensor | None
    """(1, .., length, .., 1), units by original id; None where they are all there, in order."""
    repeated: Tensor | None
    padded: bool = False
    """Whether some of the ids are −1: nobody's, always there."""

    def __call__(self, inclusion_prob: Mapping[str, Tensor]) -> Tensor:
        probs = inclusion_prob[self.group]
        if self.padded:
            probs = torch.cat([probs, probs.new_ones(1)])
        values = probs if self.ids is None else probs[self.ids]
        return values if self.repeated is None else torch.where(self.repeated, values.new_ones(()), values)

    def shape(self, sizes: Mapping[str, int]) -> torch.Size:
        """(1, .., length, .., 1), of the values."""
        return torch.Size([sizes[self.group]]) if self.ids is None else self.ids.shape

    def entries(self, numel: int) -> float:
        """How many of a block's entries hang on a unit of this slot."""
        there = None if self.ids is None else self.ids >= 0
        if self.repeated is not None:
            there = ~self.repeated if there is None else there & ~self.repeated
        return float(numel if there is None else numel * int(there.sum()) / there.numel())


@dataclass(frozen=True)
class _Owned:
    """How many entries of the owned dimensions are there, on average."""

    blocks: tuple[tuple[_Factor, ...], ...]
    sections: tuple[_Factor, ...]

    @classmethod
    def of(cls, slots: Iterable[Slot], sizes: Mapping[str, int], device: torch.device | str) -> _Owned:
        along = [slot for slot in slots if slot.dim != WHOLE]
        whole = {(s.group, int(s.unit_ids)): s for s in slots if s.dim == WHOLE}
        sections = tuple(_Factor(s.group, s.unit_ids.to(device), None) for s in whole.values())
        return cls(tuple(_block(part, sizes, device) for part in _linked(along)), sections)

    def __call__(self, inclusion_prob: Mapping[str, Tensor]) -> Tensor:
        total = next(iter(inclusion_prob.values())).new_ones(())
        for block in self.blocks:
            product = block[0](inclusion_prob)
            for factor in block[1:]:
                product = product * factor(inclusion_prob)
            total = total * product.sum()
        for section in self.sections:
            total = total * section(inclusion_prob).sum()
        return total

    def shares(self, sizes: Mapping[str, int]) -> Iterator[tuple[str, float]]:
        """Groups, and the entries that one of its units owns on average; of each slot in turn."""
        shapes = [torch.broadcast_shapes(*(f.shape(sizes) for f in block)) for block in self.blocks]
        total = math.prod(shape.numel() for shape in shapes)
        for block, shape in zip(self.blocks, shapes, strict=True):
            for factor in block if total else ():
                share = factor.entries(shape.numel()) / sizes[factor.group]
                yield factor.group, share * (total // shape.numel())
        for section in self.sections:
            yield section.group, total * section.entries(1) / sizes[section.group]


def _linked(slots: list[Slot]) -> list[list[Slot]]:
    """Slots that share a dimension or a group, directly or through others: summed over together."""
    parts: list[list[Slot]] = []
    for slot in slots:
        near = [p for p in parts if any(o.dim == slot.dim or o.group == slot.group for o in p)]
        apart = [p for p in parts if not any(p is q for q in near)]
        parts = [*apart, [*(other for part in near for other in part), slot]]
    return parts


def _block(slots: list[Slot], sizes: Mapping[str, int], device: torch.device | str) -> tuple[_Factor, ...]:
    dims = sorted({slot.dim for slot in slots})
    laid = [s.unit_ids.reshape([-1 if d == s.dim else 1 for d in dims]).to(device) for s in slots]
    factors = []
    for number, (slot, ids) in enumerate(zip(slots, laid, strict=True)):
        repeated: Tensor | None = None
        for other, theirs in zip(slots[:number], laid[:number], strict=True):
            if other.group == slot.group:
                same = ids == theirs
                repeated = same if repeated is None else repeated | same
        plain = len(dims) == 1 and torch.equal(slot.unit_ids, torch.arange(sizes[slot.group]))
        padded = bool((slot.unit_ids < 0).any())
        factors.append(_Factor(slot.group, None if plain else ids, repeated, padded))
    return tuple(factors)
