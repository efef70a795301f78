"""Which units a network has: run it once, with labels beside the numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from bayesprune.errors import NothingToGateError
from bayesprune.structure.altered import hint
from bayesprune.structure.graph.analysis.born import Born
from bayesprune.structure.graph.analysis.branches import Section, find_branches
from bayesprune.structure.graph.analysis.groups import assemble
from bayesprune.structure.graph.analysis.mirrored import mirrored
from bayesprune.structure.graph.analysis.propagate import Reader, labels_in
from bayesprune.structure.graph.capture.capture import Captured, capture
from bayesprune.structure.graph.capture.lent import WouldWrite
from bayesprune.structure.graph.capture.rows import row_dimensions
from bayesprune.structure.graph.rules.call import Findings, Raw
from bayesprune.structure.graph.rules.labels import READS_FIXED, Frozen, Labels
from bayesprune.structure.groups import ByGroup, Group, Slot
from bayesprune.structure.row import Row, find_row, may_be_row
from bayesprune.structure.running import drawing_alike
from bayesprune.structure.terms import Term


@dataclass(frozen=True)
class Structure:
    """What was found in a network.

    Attributes:
        captured: the copy and its graphs.
        findings: training or not → labels of every value of that graph, and where units are read.
        unit_of: (labels,), the unit of every label: its position in ``groups`` laid end to end; −1 for none.
        groups: the units that can be removed.
        slots: where they sit.
        frozen: what can not be removed, and why; one entry for each reason.
        sections: what stands beside a shortcut; its units are the last group's, where there are any.
        terms: what the dense network's cost is the sum of.
        owners: (units,), of a feature behind a flatten the channel that it is a number of, as a position
            like those of ``unit_of``; −1 for all other units.
        row: the layers, where the network is nothing but some in a row.
        by_group: tells the units of each group from others, sections apart.
    """

    captured: Captured
    findings: dict[bool, Findings]
    unit_of: Tensor
    groups: tuple[Group, ...]
    slots: tuple[Slot, ...]
    frozen: tuple[Frozen, ...]
    sections: tuple[Section, ...] = ()
    terms: tuple[Term, ...] = ()
    owners: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    row: Row | None = None
    by_group: ByGroup = field(default_factory=lambda: ByGroup({}))

    def owners_of(self, units: Tensor) -> Tensor:
        """(...), the units that units are features of; −1 for those that are none's."""
        return torch.cat([self.owners, torch.tensor([-1])])[units.clamp(max=len(self.owners))]

    def closed(self, alive: Tensor) -> Tensor:
        """Units without the features of channels that are not alive.

        Args:
            alive: (units,), bool.
        """
        owned = self.owners >= 0
        closed = alive.clone()
        closed[: len(owned)][owned] &= alive[self.owners[owned]]
        return closed

    @property
    def first_section(self) -> int:
        """Position of the first section among all units."""
        return sum(group.size for group in self.groups[: -1 if self.sections else None])


def find_structure(
    network: nn.Module,
    example: Any,
    exclude: Iterable[str] = (),
    lent: bool = False,
    inputs: bool | None = None,
) -> Structure:
    """Find the units of any network.

    Args:
        network: the user's; left alone.
        example: (rows, ...), a batch that it accepts, in any form that ``bp.gate`` takes.
        exclude: names or globs of groups that must stay whole.
        lent: whether the copy's parameters may lie in the memory of the user's, for reading.
        inputs: whether inputs, and features behind a flatten, are units; None: where it is a row of layers.

    Returns:
        Its structure.

    Raises:
        UnsupportedNetworkError: it cannot be traced.
        SettingsError: an exclusion that matches no group.
    """
    if lent:
        with contextlib.suppress(WouldWrite):
            return _found(capture(network, example, lent=True), exclude, inputs)
    return _found(capture(network, example), exclude, inputs)


def _found(captured: Captured, exclude: Iterable[str], inputs: bool | None) -> Structure:
    labels, findings = Labels(), dict[bool, Findings]()
    one = captured.form.plain and len(captured.example) == 1
    one = one and may_be_row(captured.graphs[False].graph)
    row = find_row(captured.network, captured.example[0], captured.returned) if one else None
    flattens = () if row is None else row.flattens
    state = {name: tensor.clone() for name, tensor in captured.network.named_buffers()}
    units = row is not None if inputs is None else inputs
    with torch.no_grad(), drawing_alike():  # what is found does not hang on a network's noise
        for training, graph in captured.graphs.items():
            twin = mirrored(captured.graphs[True], graph, findings[True]) if findings else None
            found = findings[training] = Findings(labels) if twin is None else twin
            if twin is None:
                born = Born(graph, found, flattens) if units else None
                Reader(graph, captured, found, born).run(*(x.clone() for x in captured.example))
            found.branches = find_branches(graph, captured.network, found.sizes)
            wanted = {r.source.name for r in (*found.reads, *found.norms)}
            wanted |= {branch.last for branch, _ in found.branches.values()}
            wanted |= _vectors(graph, found)
            if not wanted <= found.rows.keys():
                found.rows = row_dimensions(graph, captured.example, wanted, found.sizes)
            _freeze_rowless(found)
    for name, tensor in captured.network.named_buffers():
        tensor.copy_(state[name])
    return replace(_solved(captured, findings, exclude), row=row)


NO_ROWS = "what it reads is the same for all rows, and has no rows of its own"


def _freeze_rowless(findings: Findings) -> None:
    """What is read stays where it is one value for all rows: every row has gates of its own."""
    for read in (*findings.reads, *findings.norms):
        if read.source.name not in findings.rows:
            kind = str(read.node.target).removeprefix("aten.").partition(".")[0]
            tensor = read.place[0] if read.place else read.node.name
            place = f"{tensor.rpartition('.')[0] or tensor} ({kind})"
            findings.labels.freeze(read.labels, place, NO_ROWS)
    branches = findings.branches.items()
    findings.branches = {key: found for key, found in branches if found[0].last in findings.rows}


def _vectors(graph: fx.GraphModule, findings: Findings) -> set[str]:
    """Inputs of linear maps that have two dimensions, which may be one vector for each row."""
    maps = [n for n in graph.graph.nodes if str(n.target).startswith("aten.linear")]
    sources = [source for node in maps for source in node.all_input_nodes[:1]]
    return {source.name for source in sources if len(findings.sizes.get(source, ())) == 2}


def without(structure: Structure, node: fx.Node, reason: str, exclude: Iterable[str] = ()) -> Structure:
    """The structure when what an operation reads and returns may not be removed.

    Args:
        structure: so far.
        node: the operation.
        reason: why.
        exclude: as in :func:`find_structure`.

    Returns:
        A new one.
    """
    found = next(f for f in structure.findings.values() if node in f.of)
    before, seen = sum(group.size for group in structure.groups), {node}
    while True:  # where nothing that it reads is a unit, what that is made of may have been
        sources = [value for value in seen for value in value.all_input_nodes if value not in seen]
        seen.update(sources)
        for value in seen:
            _freeze(found, found.of.get(value), node.name, reason)
        solved = _solved(structure.captured, structure.findings, exclude)
        if not sources or sum(group.size for group in solved.groups) < before:
            return replace(solved, row=structure.row)


def _freeze(found: Findings, known: Any, place: str, reason: str) -> None:
    """All units of a value stay."""
    if isinstance(known, Raw):
        for dim in known.long_dims():
            found.labels.freeze(known.along(found.labels, dim), place, reason)
    for labels in labels_in(known):
        found.labels.freeze(labels, place, reason)


def _solved(captured: Captured, findings: dict[bool, Findings], exclude: Iterable[str]) -> Structure:
    solved = findings[True].labels.solve()
    unit_of, owners, by_group, groups, slots = assemble(captured, findings, solved, tuple(exclude))
    frozen = tuple(dict.fromkeys(solved.reasons.values()))
    return Structure(captured, findings, unit_of, groups, slots, frozen, owners=owners, by_group=by_group)


def check_something_to_gate(structure: Structure, exclude: tuple[str, ...]) -> None:
    """Complain where there is no group.

    Args:
        structure: as it came out.
        exclude: what was asked to stay whole.

    Raises:
        NothingToGateError: the first reasons are named.
    """
    if structure.groups:
        return
    told = list(dict.fromkeys(f"{frozen.place}: {frozen.reason}" for frozen in structure.frozen))
    reasons = "; ".join(told[:5]) or "no layer of it reads what another one makes"
    reads = any(frozen.reason == READS_FIXED for frozen in structure.frozen)
    remedy = " What a layer reads of the inputs is a group of its own by inputs=True." if reads else ""
    if exclude:
        reasons, remedy = f"exclude={list(exclude)!r} lists all its groups", ""
    also = hint(structure.captured.network)
    raise NothingToGateError(f"The network has nothing to gate: {reasons}.{remedy}{also}")
