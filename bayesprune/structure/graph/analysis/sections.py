"""Sections: what stands beside a shortcut, and can be removed whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor, fx, nn

from bayesprune.structure.graph.analysis.branches import Section, other_operand
from bayesprune.structure.graph.analysis.selecting import selected
from bayesprune.structure.graph.analysis.structure import Structure
from bayesprune.structure.graph.capture.capture import find_tensor
from bayesprune.structure.graph.rules.call import arguments
from bayesprune.structure.groups import WHOLE, Group, Slot
from bayesprune.structure.naming import check_names

Layers = Literal["sections", "blocks", "none"]
LAYER_GATES: tuple[str, ...] = get_args(Layers)

LAYERS = "layers"
"""Name of the group whose units are whole sections."""


def with_sections(structure: Structure, layers: Layers, exclude: Iterable[str] = ()) -> Structure:
    """Add a group whose units are the network's residual sections, one gate each.

    A section is what only one operand of a sum needs, if every path through it passes a nonlinear operation
    and the other operand has a path around it that is linear: the "nonlinear sections of a residual
    connection" of Guenter & Sideris (arXiv 2406.04549). Its gate multiplies it where it enters the sum, so
    that zero equals removal exactly. Sections may hold sections.

    Args:
        structure: of the network.
        layers: ``"sections"``, one gate each; ``"blocks"``, one gate for all sections of a module (attention
            and feed-forward of a transformer's block); ``"none"``.
        exclude: groups that must stay whole; the name ``"layers"`` means all sections.

    Returns:
        The structure with the group last, or as it was where there is no section.

    Raises:
        SettingsError: sections are excluded, and there are none.
    """
    sections = [] if layers == "none" else _sections(structure, layers)
    if LAYERS in exclude and not sections and layers != "none":
        check_names("exclude", [LAYERS], [group.name for group in structure.groups])
    if not sections or LAYERS in exclude:
        return structure
    taken = {group.name for group in structure.groups}
    name = next(n for n in (LAYERS, *(f"{LAYERS}_{i}" for i in range(2, 99))) if n not in taken)
    network, size = structure.captured.network, 1 + max(section.unit for section in sections)
    tensors = {n: find_tensor(network, n) for section in sections for n in section.tensors}
    numbers = sum(t.numel() for t in tensors.values() if isinstance(t, nn.Parameter))
    group = Group(name, size, parameters=round(numbers / size), optional=True)
    whole = tuple(
        Slot(tensor, WHOLE, name, torch.tensor([section.unit]))
        for section in sections
        for tensor in sorted(section.tensors)
    )
    groups, slots = (*structure.groups, group), (*structure.slots, *whole)
    return replace(structure, groups=groups, slots=slots, sections=tuple(sections))


def _sections(structure: Structure, layers: Layers) -> list[Section]:
    """The sections that both graphs have, in the order in which they are run."""
    found = {training: findings.branches for training, findings in structure.findings.items()}
    both = [parameters for parameters in found[True] if parameters in found[False]]
    names = [_module(parameters) for parameters in both]
    units, twice = list(range(len(both))), Counter(names)
    if layers == "blocks":
        order = list(dict.fromkeys(name or number for number, name in enumerate(names)))
        units = [order.index(name or number) for number, name in enumerate(names)]
    else:
        seen: Counter[str] = Counter()
        for number, name in enumerate(names):
            seen[name] += 1
            names[number] = f"{name}#{seen[name]}" if twice[name] > 1 else name
    return [
        Section(unit, name, found[True][p][1] | found[False][p][1], {t: found[t][p][0] for t in found})
        for unit, name, p in zip(units, names, both, strict=True)
    ]


def _module(tensors: frozenset[str]) -> str:
    """The smallest module that holds all of them."""
    parts = [name.split(".")[:-1] for name in tensors]
    common = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return ".".join(common)


def drop_sections(
    structure: Structure, training: bool, alive: Tensor, graph: fx.GraphModule
) -> frozenset[str]:
    """Take dead sections out of a graph: their sums give what the shortcut gives.

    Args:
        structure: of the whole network.
        training: which graph.
        alive: (units,) or (units + 1,), bool.
        graph: a copy of that graph, changed in place.

    Returns:
        Names of the nodes that are gone. ``stand_ins`` knows what is read in place of a sum.
    """
    by_name = {node.name: node for node in graph.graph.nodes}
    gone: set[str] = set()
    instead: dict[str, str] = graph.meta.setdefault(INSTEAD, {})
    outermost_first = sorted(structure.sections, key=lambda s: -len(s.branches[training].inside))
    for section in outermost_first:
        branch = section.branches[training]
        if bool(alive[structure.first_section + section.unit]) or branch.add in gone:
            continue
        add = by_name[branch.add]
        other = other_operand(add, branch.argument)
        assert other is not None
        other = _selected(structure, training, alive, graph, add, other)
        if any(_changes(user, add) for user in add.users):
            with graph.graph.inserting_before(add):  # the shortcut itself is not to be changed in place
                other = graph.graph.call_function(torch.ops.aten.clone.default, (other,))
        add.replace_all_uses_with(other)
        instead[branch.add] = other.name
        gone |= branch.inside | {branch.add}
    for name in [name for name in by_name if name in gone][::-1]:
        graph.graph.erase_node(by_name[name])
    return frozenset(gone)


def _selected(
    structure: Structure, training: bool, alive: Tensor, graph: fx.GraphModule, add: fx.Node, other: fx.Node
) -> fx.Node:
    """A shortcut that belongs to no unit, where the units are that it meets in the sum."""
    given = arguments(add)
    for (node, name, _), (dim, labels) in structure.findings[training].selected.items():
        if node.name == add.name and given.get(name) is other:
            known = torch.cat([alive[: structure.first_section], torch.ones(1, dtype=torch.bool)])
            stays = known[structure.unit_of[labels]]
            if not bool(stays.all()):
                rows = structure.findings[training].example_rows
                return selected(graph, add, other, (dim, labels, stays), rows)
    return other


INSTEAD = "bayesprune_instead"


def stand_ins(graph: fx.GraphModule) -> dict[str, fx.Node]:
    """Name of a value → its node; for a sum whose section is gone, what is read in its place.

    Args:
        graph: as ``drop_sections`` left it.
    """
    nodes = {node.name: node for node in graph.graph.nodes}
    instead: dict[str, str] = graph.meta.get(INSTEAD, {})
    for name in instead:
        at = name
        while at in instead:
            at = instead[at]
        if at in nodes:
            nodes[name] = nodes[at]
    return nodes


def _changes(user: fx.Node, value: fx.Node) -> bool:
    """Whether an operation writes into a value."""
    return hasattr(user.target, "_schema") and user.target._schema.is_mutable and user.args[0] is value
