"""Gates put into a network's graphs: in norms, at the input of every reader, before sections' sums."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from bayesprune.structure.graph.analysis.sections import stand_ins
from bayesprune.structure.graph.analysis.structure import Structure
from bayesprune.structure.graph.capture.dropout import follow_rates_
from bayesprune.structure.graph.rules.call import arguments
from bayesprune.structure.graph.rules.gated_reduction import weighted_node
from bayesprune.structure.graph.rules.gates import Gate, UnitGates, WeightedNorm
from bayesprune.structure.graph.surgery.adapt import REFILLS
from bayesprune.structure.groups import key_of

LAYER_NORMS = ("aten.layer_norm", "aten.rms_norm")


def gated_graph(structure: Structure, graph: fx.GraphModule, training: bool, alive: Tensor) -> fx.GraphModule:
    """A graph that takes all gates as a last input.

    Args:
        structure: of the network.
        graph: of one mode, after the cuts made so far; changed in place.
        training: which mode.
        alive: (units,), bool: not cut.

    Returns:
        The graph with a gate in front of every reader.
    """
    return _Insertion(structure, graph, training, alive).run()


class _Insertion:
    """One graph on its way; what is no longer in it, because it was cut, gets no gate.

    Args:
        structure: of the network.
        graph: changed in place.
        training: which of the network's two graphs it is.
        alive: (units,), bool: not cut.
    """

    def __init__(self, structure: Structure, graph: fx.GraphModule, training: bool, alive: Tensor) -> None:
        self.structure, self.graph, self.training = structure, graph, training
        self.found = structure.findings[training]
        self.nodes = {node.name: node for node in graph.graph.nodes}
        self.values = stand_ins(graph)  # name in the whole network → what holds that value now
        self.open = len(alive)  # where the gate lies that is always one
        self.alive = torch.cat([alive, torch.ones(1, dtype=torch.bool)])  # index −1 finds the last
        self.living, self.group_of, start = dict[bytes, str](), list[str](), 0
        for group in structure.groups:
            units = start + self.alive[start : start + group.size].nonzero().squeeze(1)
            self.living.setdefault(key_of(units), group.name)
            self.group_of += [group.name] * group.size
            start += group.size
        last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
        with graph.graph.inserting_after(last):
            self.gates = graph.graph.placeholder("gates", default_value=None)

    def run(self) -> fx.GraphModule:
        """Norms first, for what they compute is read; then readers; sections last, before their sums."""
        self.norms()
        self.readers()
        self.sections()
        self.graph.graph.lint()
        follow_rates_(self.graph, self.structure.captured, self.training)
        self.graph.recompile()
        return self.graph

    def norms(self) -> None:
        """Operations whose statistics are those of the open units take the gates themselves."""
        for number, norm in enumerate(self.found.norms):
            node, units = self.nodes.get(norm.node.name), self._units(norm.source.name, norm.dim, norm.labels)
            if node is None or units is None:
                continue
            name = f"bp_norm_{number}"
            if str(node.target).startswith(LAYER_NORMS):
                new = self._layer_norm(node, name, units)
            else:
                new = weighted_node(self.graph, node, name, units, self.gates)
            self.nodes[norm.node.name] = self.values[norm.node.name] = new

    def readers(self) -> None:
        """One gate for all that read the same units of the same value."""
        made: dict[tuple[str, int, tuple[int, ...]], fx.Node] = {}
        for read in self.found.reads:
            node, source = self.nodes.get(read.node.name), self.values.get(read.source.name)
            units = self._units(read.source.name, read.dim, read.labels)
            if node is None or source is None or units is None:
                continue
            key = (source.name, read.dim, tuple(units.columns.tolist()))
            filling = self.graph.meta.get(REFILLS, {}).get((node.name, source.name))
            reader = node if filling is None else self.nodes[filling]
            if key not in made:
                made[key] = self._gate(f"bp_gate_{len(made)}", units, source, reader)
            reader.replace_input_with(source, made[key])

    def sections(self) -> None:
        """Each section's one gate, where the section enters its sum."""
        sizes = {node.name: size for node, size in self.found.sizes.items()}
        for number, section in enumerate(self.structure.sections):
            branch = section.branches[self.training]
            node, source = self.nodes.get(branch.add), self.values.get(branch.last)
            if node is None or source is None:
                continue
            rows, inner, outer = self.found.rows.get(branch.last, (None, 1, 1))
            dim = 0 if rows else len(sizes[branch.last]) - 1  # any but that of the rows
            unit = torch.tensor([self.structure.first_section + section.unit])
            units = UnitGates(unit, dim, rows, inner, outer, groups=self._groups(unit))
            node.replace_input_with(source, self._gate(f"bp_section_{number}", units, source, node))

    def _units(self, source: str, dim: int, labels: Tensor) -> UnitGates | None:
        """The gates along a dimension of a value, by the labels of its indices; None where there are none."""
        units = self.structure.unit_of[labels]
        if not bool((units >= 0).any()):
            return None
        alive, owners = self.alive[units], self.structure.owners_of(units)
        columns, channels = (torch.where(u < 0, self.open, u)[alive] for u in (units, owners))
        owned = channels if bool((owners >= 0).any()) else None
        rows, inner, outer = self.found.rows.get(source, (None, 1, 1))
        groups = self._groups(columns, *(() if owned is None else (owned,)))
        return UnitGates(columns, dim, rows, inner, outer, owned, self._group(columns), groups)

    def _group(self, columns: Tensor) -> str | None:
        """The group whose living units columns are, all and in order."""
        return self.living.get(key_of(columns))

    def _groups(self, *columns: Tensor) -> frozenset[str]:
        """The groups that columns are units of; the gate that is always open is of none."""
        units = torch.cat(columns).unique().tolist()
        return frozenset(self.group_of[unit] for unit in units if unit != self.open)

    def _gate(self, name: str, units: UnitGates, source: fx.Node, before: fx.Node) -> fx.Node:
        """A node that multiplies ``source`` by its gates, just before the one that reads it."""
        place = (units.dim, units.rows, units.inner, units.outer)
        gate = Gate(units.columns, *place, units.owners, units.group, units.groups)
        self.graph.add_submodule(name, gate)
        with self.graph.graph.inserting_before(before):
            return self.graph.graph.call_module(name, (source, self.gates))

    def _layer_norm(self, node: fx.Node, name: str, units: UnitGates) -> fx.Node:
        """``WeightedNorm`` in a layer norm's place."""
        given, centred = arguments(node), str(node.target).startswith("aten.layer_norm")
        eps = given.get("eps", 1e-5 if centred else None)
        if eps is None:  # PyTorch's own choice for the root-mean-square form
            eps = torch.finfo(next(iter(self.structure.captured.network.parameters())).dtype).eps
        self.graph.add_submodule(name, WeightedNorm(units, centred, eps))
        read = (given["input"], given.get("weight"), given.get("bias"), self.gates)
        with self.graph.graph.inserting_before(node):
            new = self.graph.graph.call_module(name, read)
        node.replace_all_uses_with(new)
        self.graph.graph.erase_node(node)
        return new
