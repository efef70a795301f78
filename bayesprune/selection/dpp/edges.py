"""DPPEdges: of every unit's incoming edges keep those whose contributions differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from bayesprune.errors import SelectionError
from bayesprune.rows import Inputs
from bayesprune.selection.dpp.kernel import Array, edge_distances, kernel_of
from bayesprune.selection.dpp.sample import KDPP
from bayesprune.selection.family import Family, check_scope
from bayesprune.selection.masks import Masks
from bayesprune.selection.rows import inputs_of
from bayesprune.selection.rule import Rule, Scope
from bayesprune.selection.subject import Subject
from bayesprune.structure.graph import GraphNetwork
from bayesprune.structure.graph.incoming import incoming


@dataclass(frozen=True, eq=False)
class DPPEdges(Rule):
    r"""For every unit a set of incoming edges drawn from a k-DPP over their contributions to its sum.

    .. math:: P(S) \propto \det L_S, \quad |S| = k, \qquad
              L_{ij} = e^{-\beta \lVert w_i x_i - w_j x_j \rVert^2} + \varepsilon\, \delta_{ij}

    with x_i what the unit's weight w_i is multiplied by, over rows (of a convolution, also over positions).
    The distances follow from the Gram matrix of the x alone, which all units of a layer share. A k-DPP for
    each unit, with this kernel and without ε, is in the public code of Acharyya, Chattoraj, Zhang, Das &
    Štefankovič (UAI 2021, arXiv 2006.16617); that they propose it, and that it beat other ways of pruning, is
    known here from the abstract of an early version. Derived here: the extension to convolutions, β by the
    median, and that edges which carry nothing at these rows (a weight or an input that is zero throughout),
    copies of each other, are kept last, by position. ``Fuse`` re-weights the edges that stay.

    Every unit keeps the same share of its edges. Tensors that no linear map or convolution sums with
    (recurrences, embeddings) stay whole. Draws of different sizes are independent, not nested; every unit
    costs a decomposition, O(fan-in³), at each size for which it is not held.

    Attributes:
        beta: ``"rows"``, ``"median"`` or a number; see ``bandwidth``. Contributions of single edges are small
            beside activations, so that by ``"rows"`` they count as copies: the median knows no units.
        jitter: ε, which lets copies in only once all that differs is there.
        rows: (rows, ...), inputs; by default the subject's example.
        memory: GiB in which a path may hold decompositions from one size to the next, 8 · fan-in² bytes a
            unit; draws are the same with less.
    """

    edges = True

    beta: float | str = "median"
    jitter: float = 0.01
    rows: Tensor | None = field(default=None, repr=False)
    memory: float = 1.0

    def family(self, subject: Subject, scope: Scope, seed: int) -> Family:
        """The same share of every unit's edges, drawn anew at each size.

        Raises:
            SelectionError: a global scope, for which subsets of given sizes have no order; no rows; a network
                without linear maps and convolutions; a β or ε that is none.
        """
        check_scope(scope)
        if scope == "global":
            raise SelectionError("A k-DPP draws sets of a given size for each unit: use scope='layer'.")
        found, numbers = grams(subject.network, inputs_of(subject, self.rows, self.name))
        if not found:
            raise SelectionError(
                f"{self.name} looks at what linear maps and convolutions sum, and this network has none."
            )
        weights = {n: w.flatten(1).double().cpu() for n, w in subject.weights().items() if n in found}
        fans = torch.cat([torch.full((len(w),), w.shape[1]) for w in weights.values()])
        units = torch.arange(len(fans)).repeat_interleave(fans)
        starts = (fans.cumsum(0) - fans).repeat_interleave(fans)
        places = (torch.arange(len(units)) - starts + 0.5) / fans[units]  # counts are shares, rounded
        owners = units[places.argsort(stable=True)]  # whose edge comes next

        held = _Held(self.memory)

        def at(step: int) -> Masks:
            counts = torch.bincount(owners[:step], minlength=len(fans))
            masks, unit = {}, 0
            for name, weight in weights.items():
                per_group = len(weight) // len(found[name])
                kept = torch.zeros(weight.shape, dtype=torch.bool)
                for row, own in enumerate(weight):
                    edges = _Edges(own.numpy(), found[name][row // per_group], numbers[name])
                    sampler = held(unit, partial(self._sampler, edges))
                    kept[row, edges.drawn(int(counts[unit]), sampler, [seed, unit])] = True
                    unit += 1
                masks[name] = kept.reshape(subject.weights()[name].shape)
            return masks

        least = subject.edge_parameters(at(0))
        return Family(len(owners), at, parameters=lambda step: least + step)

    def _sampler(self, edges: _Edges) -> KDPP:
        """Of the edges that carry something."""
        some = np.flatnonzero(edges.carries)
        distances = edge_distances(edges.weight[some], edges.gram[np.ix_(some, some)])
        return KDPP.of(kernel_of(distances, self.beta, edges.numbers), self.jitter)


@dataclass(frozen=True, eq=False)
class _Edges:
    """One unit's weights, and of what they are multiplied by the Gram matrix and how many numbers."""

    weight: Array
    gram: Array
    numbers: int

    @property
    def carries(self) -> Array:
        """(fan-in,), bool: not zero throughout."""
        return np.asarray((self.weight != 0) & (np.diag(self.gram) > 0))

    def drawn(self, count: int, sampler: Callable[[], KDPP], seed: list[int]) -> Array:
        """(count,), places of the edges that stay."""
        some, none = np.flatnonzero(self.carries), np.flatnonzero(~self.carries)
        if count >= len(some):
            return np.concatenate([some, none[: count - len(some)]])
        if count == 0:
            return some[:0]
        return np.asarray(some[sampler().sample(count, np.random.default_rng(seed))])


class _Held:
    """Decompositions by unit, as long as there is room for them; the others are made anew each time."""

    def __init__(self, gib: float) -> None:
        self.left, self.found = gib * 2**30, dict[int, KDPP]()

    def __call__(self, unit: int, make: Callable[[], KDPP]) -> Callable[[], KDPP]:
        """What gives one unit's."""

        def given() -> KDPP:
            if unit in self.found:
                return self.found[unit]
            made = make()
            if made.eigenvectors.nbytes <= self.left:
                self.left -= made.eigenvectors.nbytes
                self.found[unit] = made
            return made

        return given


def grams(network: GraphNetwork, rows: Inputs) -> tuple[dict[str, Array], dict[str, int]]:
    """What the weights of linear maps and convolutions are multiplied by, times itself.

    Args:
        network: left alone.
        rows: (rows, ...), inputs.

    Returns:
        Weight → (groups, fan-in, fan-in), XᵀX over rows and positions, summed over the places where it is
        used; and weight → how many these were.
    """
    found: dict[str, Array] = {}
    numbers: dict[str, int] = {}
    for use in chain.from_iterable(incoming(network, rows)):
        found[use.weight] = found.get(use.weight, 0) + (use.values.mT @ use.values).numpy()
        numbers[use.weight] = numbers.get(use.weight, 0) + use.values.shape[1]
    return found, numbers
