"""From labels that belong together to groups of units, by name, and where they sit."""

from __future__ import annotations

import fnmatch

import numpy as np
import torch
from torch import Tensor, nn

from bayesprune.structure.graph.analysis.propagate import labels_in
from bayesprune.structure.graph.capture.capture import Captured, find_tensor
from bayesprune.structure.graph.rules.call import Findings
from bayesprune.structure.graph.rules.labels import FIXED, Labels, Solved, compact
from bayesprune.structure.groups import ByGroup, Group, Slot
from bayesprune.structure.naming import check_names

Kind = tuple[tuple[str, int], ...]
"""All the places and parts that a unit is in; units of one kind make a group."""


def assemble(
    captured: Captured,
    findings: dict[bool, Findings],
    solved: Solved,
    exclude: tuple[str, ...],
) -> tuple[Tensor, Tensor, ByGroup, tuple[Group, ...], tuple[Slot, ...]]:
    """Make groups of the labels' classes.

    Args:
        captured: the network.
        findings: training or not → what was found in that graph.
        solved: the classes, which of them stay, and whose features they are.
        exclude: names or globs of groups that must stay whole.

    Returns:
        (labels,), the unit of every label, −1 for none: of a feature that is no unit itself, its channel's;
        (units,), the unit that each is a feature of, −1 for none; what tells units by group; the groups;
        and where they sit.

    Raises:
        SettingsError: an exclusion that matches no group.
    """
    kinds = {kind: u for kind, u in _kinds(findings, solved).items() if len(u) > 1}
    names = _names(captured, findings[True].labels, list(kinds))
    check_names("exclude", exclude, list(names.values()))
    chosen = {k: u for k, u in kinds.items() if not any(fnmatch.fnmatchcase(names[k], p) for p in exclude)}
    class_unit, start = torch.full((len(solved.classes),), -1), 0
    for units in chosen.values():
        class_unit[units] = torch.arange(start, start + len(units))
        start += len(units)
    class_unit[FIXED] = -1
    owner = class_unit[solved.owners]  # of every class
    owners = torch.full((start,), -1)
    owners[class_unit[class_unit >= 0]] = owner[class_unit >= 0]
    unit_of = torch.where(class_unit < 0, owner, class_unit)[solved.classes]
    sizes = {names[kind]: len(units) for kind, units in chosen.items()}
    by_group = ByGroup(sizes)
    return unit_of, owners, by_group, *_groups(captured, findings, (unit_of, owners), sizes, by_group)


def _kinds(findings: dict[bool, Findings], solved: Solved) -> dict[Kind, Tensor]:
    """Classes that are read and not frozen, by the places and parts that they are in; (units,) each, sorted.

    All are of one kind at first; every place, and every part, sets those that it holds apart from the others.
    """
    classes = solved.classes.numpy()
    kind_of = np.full(len(classes), -1)
    kind_of[_read(findings, solved)] = 0
    kind_of[[FIXED, *solved.reasons]] = -1
    kinds: list[tuple[int, tuple[str, int]]] = [(0, ("", 0))]  # of which kind it was set apart, and where
    starts = findings[True].labels.starts.items()
    holders = [(place, classes[start : start + size]) for place, (start, size) in starts]
    parts = enumerate(_parts(findings, solved.classes))
    holders += [((f"part/{number}", 0), np.array(members, dtype=np.int64)) for number, members in parts]
    for place, members in holders:
        before = kind_of[members]
        for kind in set(before.tolist()) - {-1}:
            kind_of[members[before == kind]] = len(kinds)
            kinds.append((kind, place))
    units = np.flatnonzero(kind_of > 0)  # in no place: of nobody's
    order = np.argsort(kind_of[units], kind="stable")
    found = np.split(units[order], np.flatnonzero(np.diff(kind_of[units][order])) + 1)
    of_kinds = sorted((u for u in found if len(u)), key=lambda u: int(u[0]))
    return {_places(kinds, int(kind_of[u[0]])): torch.from_numpy(u) for u in of_kinds}


def _places(kinds: list[tuple[int, tuple[str, int]]], kind: int) -> Kind:
    """The places and parts of a kind, in order."""
    places = []
    while kind:
        kind, place = kinds[kind]
        places.append(place)
    return tuple(places[::-1])


def _read(findings: dict[bool, Findings], solved: Solved) -> Tensor:
    """The classes that are read somewhere; a channel is, where a feature of it is."""
    labels = [r.labels for found in findings.values() for r in found.reads]
    labels += [inside for found in findings.values() for inside in found.inside]
    read = torch.cat([solved.classes.new_zeros(0), *(compact(label).reshape(-1) for label in labels)])
    classes = torch.unique(solved.classes[read])
    return torch.cat([classes, solved.owners[classes]])


def _parts(findings: dict[bool, Findings], classes: Tensor) -> list[tuple[int, ...]]:
    """The units in every part that is taken out of a value, each set once.

    Units that are in different parts make groups of their own: as long as every group keeps a unit, no part
    loses its last one, and no cut is refused because nothing is left of a value.
    """
    found: dict[tuple[int, ...], None] = {}
    of = {node: known for f in findings.values() if not f.mirrored for node, known in f.of.items()}
    for node, known in of.items():
        kind = str(node.target).removeprefix("aten.").partition(".")[0]
        if node.op == "call_function" and kind in TAKES:
            source = of.get(node.args[0])  # type: ignore[arg-type]
            whole = _members(source, classes) if isinstance(source, Tensor) else ()
            for labels in labels_in(known):
                members = _members(labels, classes)
                if members != whole:
                    found[members] = None
    return list(found)


def _members(labels: Tensor, classes: Tensor) -> tuple[int, ...]:
    return tuple(label for label in torch.unique(classes[compact(labels)]).tolist() if label != FIXED)


TAKES = {"slice", "select", "narrow", "split", "split_with_sizes", "chunk", "tensor_split", "unbind", "index",
         "index_select", "hsplit", "vsplit", "diagonal", "unfold"}  # fmt: skip
"""Operations whose results may hold fewer units than what they read."""


def _names(captured: Captured, labels: Labels, kinds: list[Kind]) -> dict[Kind, str]:
    """A name for each kind of unit: the module of its first producer; of those that no layer makes their own;
    else the module of the first parameter.
    """
    order = {name: i for i, (name, _) in enumerate(captured.network.named_parameters(remove_duplicate=False))}
    names, taken = dict[Kind, str](), set[str]()
    for kind in kinds:
        produced = [t for t, d in kind if d == 0 and find_ndim(captured.network, t) > 1]
        born = [labels.born[t].name for t, _ in kind if t in labels.born]
        first = min(produced or [t for t, _ in kind], key=lambda t: order.get(t, len(order)))
        name = first.rpartition(".")[0].replace(".", "_") or first
        name = born[0] if born and not produced else name
        base, number = name, 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        names[kind] = name
        taken.add(name)
    return names


def find_ndim(network: nn.Module, name: str) -> int:
    """Dimensions of a parameter or buffer."""
    tensor = find_tensor(network, name)
    return tensor.ndim if tensor is not None else 0


def _groups(
    captured: Captured,
    findings: dict[bool, Findings],
    units_of: tuple[Tensor, Tensor],
    sizes: dict[str, int],
    by_group: ByGroup,
) -> tuple[tuple[Group, ...], tuple[Slot, ...]]:
    read = {r.place for found in findings.values() for r in found.reads}
    (unit_of, owners), slots = units_of, {name: list[Slot]() for name in sizes}
    padded = torch.cat([owners, torch.tensor([-1])])
    counts = {name: [0, 0, 0] for name in sizes}  # parameters, fan in, fan out
    for (tensor, dim), (start, length) in findings[True].labels.starts.items():
        whole, units = find_tensor(captured.network, tensor), unit_of[start : start + length]
        for name, ids in by_group(padded[units], units):
            slots[name].append(Slot(tensor, dim, name, ids, reads=(tensor, dim) in read))
            if not isinstance(whole, nn.Parameter):
                continue
            mine = int((ids >= 0).sum())
            share = round(whole.numel() / length * mine / sizes[name])  # numbers that one unit has of it
            count = counts[name]
            count[0] += share
            if (tensor, dim) in read:
                count[2] += share
            elif dim == 0 and whole.ndim > 1:
                count[1] += share
    groups = [
        Group(name, sizes[name], max(fan_in, 1), max(fan_out, 1), parameters)
        for name, (parameters, fan_in, fan_out) in counts.items()
    ]
    return tuple(groups), tuple(slot for several in slots.values() for slot in several)
