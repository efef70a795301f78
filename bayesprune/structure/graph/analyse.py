"""Analysis: what was found in a network, proved by trial cuts, and what can be done with it."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bayesprune.errors import SettingsError
from bayesprune.structure.altered import check_gradients
from bayesprune.structure.collecting import only_new_garbage
from bayesprune.structure.copying import copy_of
from bayesprune.structure.graph.analysis.costs import with_costs
from bayesprune.structure.graph.analysis.sections import LAYER_GATES, LAYERS, Layers, with_sections
from bayesprune.structure.graph.analysis.structure import (
    Structure,
    check_something_to_gate,
    find_structure,
    without,
)
from bayesprune.structure.graph.capture.lent import shared_memory_copy, unshare_
from bayesprune.structure.graph.network import GraphNetwork
from bayesprune.structure.graph.rules.labels import READS_FIXED, Frozen
from bayesprune.structure.graph.surgery.adapt import NOTHING_LEFT, CannotAdapt, tried
from bayesprune.structure.graph.surgery.shapes import check_shapes
from bayesprune.structure.groups import Group, Slot
from bayesprune.structure.naming import as_names, check_groups
from bayesprune.structure.running import check_plain


class Analysis:
    """What was found in a network, and what can be done with it.

    Until ``gated`` is asked for, parameters are read from the user's network as they are then: nothing is
    copied but what a smaller network keeps.
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self._lendable = bool(structure.captured.lent)
        self._gated: GraphNetwork | None = None

    @property
    def gated(self) -> GraphNetwork:
        """The network under gates, with parameters of its own."""
        if self._gated is None:
            captured = self.structure.captured
            if captured.lent:
                captured = replace(captured, network=copy_of(captured.network), lent=frozenset())
                self.structure = replace(self.structure, captured=captured)
            self._gated = GraphNetwork(self.structure)
        return self._gated

    def __str__(self) -> str:
        """A table for a terminal: groups, what one unit accounts for, and what stays, and why."""
        lines = [f"{'group':32} {'units':>6} {'parameters a unit':>18} {'MACs a unit':>14}"]
        for g in self.groups:
            lines.append(f"{g.name:32} {g.size:6d} {g.parameters:18,d} {g.macs:14,d}")
        if self.structure.sections:
            names = [s.name or "the network" for s in self.structure.sections]
            group = self.groups[-1].name
            lines.append(f"{group} are the sections beside the shortcuts of {', '.join(names)}")
        lines += [_line(frozen) for frozen in self.frozen]
        return "\n".join(lines)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The units that can be removed."""
        return self.structure.groups

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Where they sit."""
        return self.structure.slots

    @property
    def frozen(self) -> tuple[Frozen, ...]:
        """What cannot be removed, and why."""
        return self.structure.frozen

    def cut(self, alive: Mapping[str, Tensor], optimiser: torch.optim.Optimizer | None = None) -> nn.Module:
        """A smaller copy without the units that are not alive; ``gated`` is left alone.

        Args:
            alive: group → (size,), bool; groups not named stay whole.
            optimiser: its state is cut along.

        Raises:
            SettingsError: a group that there is not.
            RemovalError: the network would compute something else.
        """
        check_groups("cut", alive, [group.name for group in self.groups])
        lender = self.structure.captured.network
        twin = shared_memory_copy(lender) if self._lendable else copy_of(lender)
        captured = replace(self.structure.captured, network=twin)
        already = None if self._gated is None else self._gated.alive.clone()
        with only_new_garbage():
            network = GraphNetwork(replace(self.structure, captured=captured), already)
            network.cut_(alive, optimiser, gated=False)
            return unshare_(network.plain(handed_over=True, own_class=True), lender)

    def cut_(self, alive: Mapping[str, Tensor], optimiser: torch.optim.Optimizer | None = None) -> None:
        """Remove units from ``gated`` in place; as `cut`."""
        check_groups("cut_", alive, [group.name for group in self.groups])
        self.gated.cut_(alive, optimiser)


def _line(frozen: Frozen) -> str:
    """What stays: where a layer reads what is fixed it is its inputs, and its own units may still go."""
    if frozen.reason == READS_FIXED:
        return f"stays: the inputs of {frozen.place}: what makes them is fixed"
    return f"stays: {frozen.place}: {frozen.reason}"


def analyse(
    network: nn.Module,
    example: Any,
    exclude: Iterable[str] = (),
    layers: Layers = "sections",
    inputs: bool | None = None,
) -> Analysis:
    """Find the units of any network, and what keeps the others.

    Args:
        network: the user's; left alone.
        example: (rows, ...), a batch that it accepts, in any form that ``bp.gate`` takes.
        exclude: names or globs of groups that must stay whole.
        layers: which residual sections are units too, see ``bp.gate``.
        inputs: whether inputs, and features behind a flatten, are units too, see ``bp.gate``.

    Returns:
        Groups, slots and reasons; the network under gates; smaller copies of it.

    Example:
        >>> from torch import nn
        >>> class Residual(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        ...     def forward(self, x):
        ...         x = self.first(x).relu()
        ...         return self.head(x + self.second(x))
        >>> analysis = analyse(Residual(), torch.zeros(2, 4))
        >>> print(analysis)
        group                             units  parameters a unit    MACs a unit
        first                                 6                 20             18
        stays: the inputs of first (linear): what makes them is fixed
        stays: output: it is what the network returns
        >>> small = analysis.cut({"first": torch.tensor([True, True, False, True, True, False])})
        >>> type(small).__name__, small.second.weight.shape
        ('Residual', torch.Size([4, 4]))
    """
    return Analysis(provable_structure(network, example, exclude, layers, inputs, lent=True))


def provable_structure(
    network: nn.Module,
    example: Any,
    exclude: Iterable[str] = (),
    layers: Layers = "sections",
    inputs: bool | None = None,
    lent: bool = False,
) -> Structure:
    """The structure, after trial cuts: units that an operation cannot follow when they go one by one stay.

    Args:
        network: the user's; left alone.
        example: (rows, ...), a batch that it accepts, in any form that ``bp.gate`` takes.
        exclude: names or globs of groups that must stay whole.
        layers: which residual sections are units too.
        inputs: as in :func:`find_structure`.
        lent: as in :func:`find_structure`.

    Returns:
        Its structure.

    Raises:
        UnsupportedNetworkError: it cannot be traced, or has hooks that change gradients.
        NothingToGateError: neither a unit nor a section can be removed.
        SettingsError: an exclusion that matches nothing, or ``layers`` that is none of its three values.
    """
    check_plain(network, "the analysis")
    check_gradients(network, "The analysis")
    exclude = as_names(exclude)
    if layers not in LAYER_GATES:
        raise SettingsError(f"layers={layers!r} is none of {', '.join(map(repr, LAYER_GATES))}.")
    units = tuple(pattern for pattern in exclude if pattern != LAYERS)
    with only_new_garbage():
        structure = find_structure(network, example, units, lent, inputs)
        for _ in range(TRIALS):
            problem = _trial(structure)
            if problem is None:
                break
            structure = without(structure, problem.node, problem.reason, units)
        gc.collect()  # graphs of the tracing and of the trials, which weigh more than a small network
    structure = with_sections(structure, layers, exclude)
    check_something_to_gate(structure, exclude)
    return with_costs(structure)


TRIALS = 50  # operations that are given up on, at most


def _trial(structure: Structure) -> CannotAdapt | None:
    """What cannot follow the first few random cuts, if anything; of graphs that do the same one is cut."""
    modes = [training for training, found in structure.findings.items() if not found.mirrored]
    for attempt, drawn in enumerate(_drawn([group.size for group in structure.groups])):
        alive = structure.closed(drawn)
        for training in modes:
            try:
                graph = tried(structure, training, alive)
                if attempt == 0:
                    check_shapes(structure, training, alive, graph)
            except CannotAdapt as problem:
                if problem.reason != NOTHING_LEFT:
                    return problem
    return None


def _drawn(sizes: list[int]) -> list[Tensor]:
    """(units,) bool each: random cuts that leave each group its first unit; one of them takes some of it."""
    generator = torch.Generator().manual_seed(0)
    masks = [torch.rand(sum(sizes), generator=generator) > 0.3 for _ in range(4)]
    start = 0
    for size in sizes:
        for alive in masks:
            alive[start] = True
        if size > 1 and all(bool(alive[start : start + size].all()) for alive in masks):
            masks[-1][start + size - 1] = False  # small groups may have been lucky each time
        start += size
    return masks
