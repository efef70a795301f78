"""Classes of units that nobody reads once another is empty: what ``close_over`` finds, class by class."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np

from bayesprune.structure.classes import Ints
from bayesprune.structure.expected import Costed
from bayesprune.structure.groups import WHOLE, Slot


class Readers:
    """Ways in which classes of units (``Classes``) are read, each with all classes that it takes.

    A column that units of several classes own is there for every choice of one unit of each. So while each of
    these classes has a unit left, all of their units are read there, and units of a class lose their last
    reader together. A reader inside a section takes the section as well.

    Args:
        network: as it is now; build anew after a cut.
        labels: (units of all groups,), number of each unit's class in it.
    """

    def __init__(self, network: Costed, labels: Ints) -> None:
        names = (group.name for group in network.groups)
        parts = np.split(labels, np.cumsum([group.size for group in network.groups])[:-1])
        classes = {name: np.append(part, -1) for name, part in zip(names, parts, strict=True)}
        read = {slot.group for slot in network.slots if slot.reads}
        tables: dict[tuple[str, int], list[Slot]] = defaultdict(list)
        sections: dict[str, frozenset[int]] = defaultdict(frozenset)
        for slot in network.slots:
            if slot.dim == WHOLE:
                sections[slot.tensor] |= {int(classes[slot.group][int(slot.unit_ids)])}
            else:
                tables[slot.tensor, slot.dim].append(slot)
        self._ways: dict[int, set[frozenset[int]]] = defaultdict(set)
        for way in sections.values():
            for section in way:
                self._ways[section].add(way)
        for (tensor, _), slots in tables.items():
            reads = [slot.reads or slot.group not in read for slot in slots]  # as in ``close_over``
            owners = np.stack([classes[slot.group][slot.unit_ids.numpy()] for slot in slots], 1)
            for kind in np.unique(owners, axis=0).tolist() if any(reads) else []:
                way = sections[tensor].union(kind) - {-1}
                for of in set(itertools.compress(kind, reads)) - {-1}:
                    self._ways[of].add(way)
        self._helped: dict[int, set[int]] = defaultdict(set)
        for of, ways in self._ways.items():
            for helper in frozenset[int]().union(*ways):
                self._helped[helper].add(of)

    def follow(self, emptied: int, counts: Ints) -> list[int]:
        """A class, and those that nobody reads without it.

        Args:
            emptied: the class that is about to be empty.
            counts: (classes,), units left of each, of a closed network.
        """
        there, gone = (counts > 0).tolist(), [emptied]
        there[emptied] = False
        for lost in gone:
            for of in self._helped[lost]:
                if there[of] and not any(all(there[each] for each in way) for way in self._ways[of]):
                    there[of] = False
                    gone.append(of)
        return gone
