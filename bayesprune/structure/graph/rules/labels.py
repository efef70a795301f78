"""Labels: for every number that a network computes, the unit that it belongs to.

A label names an index along one dimension of one parameter or buffer (a *place*). Operations either pass
labels on, or say that two of them are the same unit, or that one may never be removed. What is united in the
end are the units: a class of places that must be cut together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

FIXED = 0
"""The label of numbers that belong to no unit: inputs, outputs, constants."""


READS_FIXED = "it reads what is fixed"
"""The reason where the inputs of a layer stay, and only they: its outputs are another matter."""


@dataclass(frozen=True)
class Frozen:
    """Units that stay, and why.

    Attributes:
        place: the operation, with the parameter it reads where it has one.
        reason: why its units cannot be removed.
    """

    place: str
    reason: str


@dataclass(frozen=True)
class Born:
    """Units that no layer makes: a network's inputs, or the features that channels are flattened to.

    Attributes:
        name: of their group.
        labels: (size,), one for each.
        owners: (size,), the label of the channel that a feature is a number of; ``FIXED`` for inputs, and
            for features of what stays.
    """

    name: str
    labels: Tensor
    owners: Tensor


@dataclass
class Labels:
    """All places, and what is known about them so far.

    Attributes:
        starts: (tensor, dimension) → (label of its first index, number of indices).
        whole: (tensor, dimension) that were found to stay as they are, all indices of them.
        born: place that is in no tensor, of inputs or of features → what its units are.
    """

    starts: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    whole: set[tuple[str, int]] = field(default_factory=set)
    born: dict[str, Born] = field(default_factory=dict)
    _edges: list[Tensor] = field(default_factory=list)
    _known: set[int] = field(default_factory=set)
    _frozen: list[tuple[Tensor, Frozen]] = field(default_factory=list)
    _next: int = 1

    def of(self, tensor: str, dim: int, size: int) -> Tensor:
        """(size,), the labels along a dimension of a parameter or buffer."""
        if (tensor, dim) not in self.starts:
            self.starts[tensor, dim] = (self._next, size)
            self._next += size
        start, size = self.starts[tensor, dim]
        return torch.arange(start, start + size)

    def is_whole(self, place: tuple[str, int] | None) -> bool:
        """Whether a dimension of a parameter is known to stay as it is."""
        return place is None or place in self.whole

    def bear(self, place: str, name: str, owners: Tensor) -> Tensor:
        """(size,), labels of units that no layer makes; the same in both graphs.

        Args:
            place: what they are known by.
            name: of their group.
            owners: (size,), the labels that their numbers had so far.
        """
        labels = self.of(place, 0, len(owners))
        if place in self.born:
            self.unite_owners(self.born[place].owners, owners)
        else:
            self.born[place] = Born(name, labels, owners)
        return labels

    def unite_owners(self, first: Tensor, second: Tensor) -> None:
        """Say that owners of equal position are one unit; one without a unit makes the other one stay."""
        both = (first != FIXED) & (second != FIXED)
        self.unite(first[both], second[both])
        for alone in (first[~both], second[~both]):
            self.freeze(alone, "features", "they are of a unit in one mode alone")

    def new_name(self, kind: str) -> str:
        """A name for indices that are in no parameter: the zeros of a padding, say."""
        return f"{kind}/{len(self.starts)}"

    def unite(self, first: Tensor, second: Tensor) -> None:
        """Say that labels of equal position are one unit. A label that meets ``FIXED`` is frozen.

        Args:
            first: (...), labels.
            second: (...), of the same shape.
        """
        edges = _pairs(first, second).to(torch.int32)
        key = hash(edges.numpy().tobytes())
        if key not in self._known:  # what one graph says the other one mostly says again
            self._known.add(key)
            self._edges.append(edges)

    def freeze(self, labels: Tensor, place: str, reason: str) -> None:
        """Say that units may never be removed."""
        found = torch.unique(compact(labels))
        found = found[found != FIXED]
        if len(found):
            self._frozen.append((found, Frozen(place, reason)))

    def solve(self) -> Solved:
        """Put together what was said, and what follows of features: units that are one have one owner."""
        owners = self._owner_pairs()
        while True:
            classes = self._classes()
            pairs = _each_once(*classes[owners])
            pairs = pairs[:, pairs[0] != pairs[1]]  # a feature that is one unit with its own channel
            same = pairs[0, 1:] == pairs[0, :-1]
            if not bool(same.any()):
                break
            self.unite(pairs[1, 1:][same], pairs[1, :-1][same])
        reasons: dict[int, Frozen] = {}
        for labels, frozen in self._frozen:
            for label in torch.unique(classes[labels]).tolist():
                reasons.setdefault(label, frozen)
        owner = torch.full((self._next,), FIXED)
        owner[pairs[0]] = pairs[1]
        for channel in pairs[1, owner[pairs[1]] != FIXED].tolist():
            reasons.setdefault(channel, Frozen("features", "they are flattened twice"))
        stays = torch.zeros(self._next, dtype=torch.bool)
        stays[list(reasons)] = True
        for feature, channel in pairs[:, stays[pairs[0]]].T.tolist():
            reasons.setdefault(channel, reasons[feature])
        return Solved(classes, reasons, owner)

    def _owner_pairs(self) -> Tensor:
        """(2, pairs), label of a feature and of the channel that it is of."""
        found = [torch.stack([b.labels, b.owners])[:, b.owners != FIXED] for b in self.born.values()]
        return torch.cat([torch.zeros(2, 0, dtype=torch.long), *found], 1)

    def _classes(self) -> Tensor:
        """(labels,), the class of every label, numbered by its smallest one."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        edges = torch.cat([*self._edges, torch.zeros(2, 0, dtype=torch.int32)], 1).numpy()
        ones = np.ones(edges.shape[1], dtype=np.int8)
        graph = coo_matrix((ones, (edges[0], edges[1])), shape=(self._next, self._next))
        _, component = connected_components(graph, directed=False)
        smallest = np.full(component.max() + 1, self._next)
        np.minimum.at(smallest, component, np.arange(self._next))
        return torch.from_numpy(smallest[component])


@dataclass(frozen=True)
class Solved:
    """Labels put together.

    Attributes:
        classes: (labels,), the class of every label, numbered by its smallest one; ``FIXED`` is its own.
        reasons: class → why it stays, where it does.
        owners: (labels,), class of a feature → class of the channel that it is of; ``FIXED`` for all others.
    """

    classes: Tensor
    reasons: dict[int, Frozen]
    owners: Tensor


def _pairs(first: Tensor, second: Tensor) -> Tensor:
    """(2, pairs), what meets what, each pair once."""
    both = torch.stack(torch.broadcast_tensors(first, second))
    for dim in range(1, both.ndim):
        if first.stride(dim - 1) == 0 and second.stride(dim - 1) == 0:
            both = both.narrow(dim, 0, 1)
    return _each_once(*both.reshape(2, -1))


def _each_once(first: Tensor, second: Tensor) -> Tensor:
    """(2, pairs), sorted: what occurs together."""
    numbers = torch.unique(first * _MOST + second)  # much faster than unique columns
    return torch.stack([numbers // _MOST, numbers % _MOST])


_MOST = 2**31
"""More labels than there can be."""


def kinds(labels: Tensor) -> int:
    """How many labels there are."""
    return len(compact(labels).unique())


def compact(labels: Tensor) -> Tensor:
    """The same labels without the dimensions along which memory says that they repeat."""
    for dim in range(labels.ndim):
        if labels.stride(dim) == 0 and labels.shape[dim] > 1:
            labels = labels.narrow(dim, 0, 1)
    return labels


def varies(labels: Tensor) -> list[bool]:
    """Whether labels differ along each dimension."""
    small = compact(labels)
    return [
        small.shape[dim] > 1 and not bool((small == small.narrow(dim, 0, 1)).all())
        for dim in range(small.ndim)
    ]


def along(labels: Tensor, dim: int) -> Tensor | None:
    """(size,), labels along one dimension, if they vary along no other one; else, or of no numbers, None."""
    dim %= labels.ndim
    if not labels.numel() or any(v for d, v in enumerate(varies(labels)) if d != dim):
        return None
    index = tuple(slice(None) if d == dim else 0 for d in range(labels.ndim))
    return labels[index].contiguous()


def spread(vector: Tensor, dim: int, shape: torch.Size) -> Tensor:
    """Labels along one dimension as a tensor of the given shape that takes no memory for the others."""
    dim %= len(shape)
    return vector.reshape([-1 if d == dim else 1 for d in range(len(shape))]).expand(shape)
