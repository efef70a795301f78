"""Gates at the inputs of all readers, put into a network's graphs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from bayesprune.structure.graph.analyse import Structure
from bayesprune.structure.graph.call import arguments
from bayesprune.structure.graph.rates import follow_rates_
from bayesprune.structure.graph.sections import stand_ins
from bayesprune.structure.graph.weighted import weighted_node


class UnitGates(nn.Module):
    """The gates of the units along one dimension of a value, in the shape that they multiply it in.

    Args:
        columns: (size,), position of each index' unit among all gates; the last gate is always one.
        dim: the dimension that the units run along.
        rows: the dimension that the rows run along; None where there is no such dimension.
        inner: how often a row comes, one after the other, along that dimension.
        outer: how often the whole sequence of rows comes.
    """

    columns: Tensor

    def __init__(self, columns: Tensor, dim: int, rows: int | None, inner: int, outer: int) -> None:
        super().__init__()
        self.register_buffer("columns", columns, persistent=False)
        self.dim, self.rows, self.inner, self.outer = dim, rows, inner, outer

    def spread(self, ndim: int, gates: Tensor) -> Tensor:
        """Gates in a shape that broadcasts against the value.

        Args:
            ndim: of the value.
            gates: (units + 1,) for all rows alike, or (rows, units + 1).

        Returns:
            ``ndim`` dimensions, of size one but for units and rows.
        """
        z = gates.index_select(-1, self.columns)
        shape = [1] * ndim
        shape[self.dim] = len(self.columns)
        if z.ndim == 2 and len(z) > 1:
            if self.rows is None:
                raise ValueError("rows have no dimension of their own here: give the same gates to all rows.")
            if self.inner > 1:
                z = z.repeat_interleave(self.inner, 0)
            if self.outer > 1:
                z = z.repeat(self.outer, 1)
            shape[self.rows] = len(z)
            if self.rows > self.dim:
                z = z.T
        return z.reshape(shape)


class Gate(UnitGates):
    """Multiplies units by their gates: ``y = x · z``.

    Example:
        >>> gate = Gate(torch.tensor([0, 1]), dim=1, rows=0, inner=1, outer=1)
        >>> gate(torch.ones(3, 2), torch.tensor([0.0, 1.0, 1.0]))[0]
        tensor([0., 1.])
    """

    def forward(self, x: Tensor, gates: Tensor | None) -> Tensor:
        """Multiply.

        Args:
            x: (...), what a reader reads.
            gates: (units + 1,) for all rows alike, or (rows, units + 1); None leaves ``x`` as it is.

        Returns:
            The same shape.
        """
        return x if gates is None else x * self.spread(x.ndim, gates)


class WeightedNorm(UnitGates):
    """Layer norm, or its root-mean-square form, whose statistics are those of the open units.

    With z the gates, m = Σ z x / Σ z and v = Σ z (x − m)² / Σ z: at gates of zero and one exactly what a
    plain norm over the open units alone computes, so that units can be cut out of it. The root-mean-square
    form has m = 0.

    Args:
        gates: where its units are.
        centred: whether the mean is subtracted.
        eps: added to v.
    """

    def __init__(self, gates: UnitGates, centred: bool, eps: float) -> None:
        super().__init__(gates.columns, gates.dim, gates.rows, gates.inner, gates.outer)
        self.centred, self.eps = centred, eps

    def forward(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, gates: Tensor | None) -> Tensor:
        """Normalise over the last dimension.

        Args:
            x: (..., units).
            weight: (units,), scale after it.
            bias: (units,), shift after it.
            gates: as in ``Gate``; None means all open.

        Returns:
            The same shape.
        """
        size = x.shape[-1:]
        if gates is None:
            if self.centred:
                return F.layer_norm(x, size, weight, bias, self.eps)
            return F.rms_norm(x, size, weight, self.eps)
        z = self.spread(x.ndim, gates)
        z = z / z.sum(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        if self.centred:
            x = x - (z * x).sum(-1, keepdim=True)
        y = x * torch.rsqrt((z * x.square()).sum(-1, keepdim=True) + self.eps)
        y = y if weight is None else y * weight
        return y if bias is None else y + bias


def gated_graphs(
    structure: Structure, graphs: dict[bool, fx.GraphModule], alive: Tensor
) -> dict[bool, fx.GraphModule]:
    """Graphs that take all gates as a last input.

    Args:
        structure: of the network.
        graphs: training or not → the graph, after the cuts made so far.
        alive: (units,), bool: not cut.

    Returns:
        Training or not → the graph with a gate in front of every reader.
    """
    return {training: _insert(structure, graph, training, alive) for training, graph in graphs.items()}


def _insert(structure: Structure, graph: fx.GraphModule, training: bool, alive: Tensor) -> fx.GraphModule:
    found = structure.findings[training]
    by_name, values = {node.name: node for node in graph.graph.nodes}, stand_ins(graph)
    found_node = {node.name: node for node in found.sizes}
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    with graph.graph.inserting_after(last):
        gates = graph.graph.placeholder("gates", default_value=None)

    def unit_gates(source: str, dim: int, labels: Tensor) -> UnitGates | None:
        units = structure.unit_of[labels]
        if not bool((units >= 0).any()):
            return None
        columns = torch.where(units < 0, len(alive), units)[_extended(alive)[units]]
        return UnitGates(columns, dim, *found.rows.get(source, (None, 1, 1)))

    made: dict[tuple[str, int, tuple[int, ...]], fx.Node] = {}
    for number, norm in enumerate(found.norms):
        node, units = by_name.get(norm.node.name), unit_gates(norm.source.name, norm.dim, norm.labels)
        if node is None or units is None:
            continue
        name, given = f"bp_norm_{number}", arguments(node)
        if not str(node.target).startswith(("aten.layer_norm", "aten.rms_norm")):
            by_name[norm.node.name] = values[norm.node.name] = weighted_node(graph, node, name, units, gates)
            continue
        centred = str(node.target).startswith("aten.layer_norm")
        eps = given.get("eps", 1e-5 if centred else None)
        eps = (
            torch.finfo(next(iter(structure.captured.network.parameters())).dtype).eps if eps is None else eps
        )
        graph.add_submodule(name, WeightedNorm(units, centred, eps))
        with graph.graph.inserting_before(node):
            new = graph.graph.call_module(
                name, (given["input"], given.get("weight"), given.get("bias"), gates)
            )
        node.replace_all_uses_with(new)
        graph.graph.erase_node(node)
        by_name[norm.node.name] = values[norm.node.name] = new
    for read in found.reads:
        node, source = by_name.get(read.node.name), values.get(read.source.name)
        if node is None or source is None:
            continue
        units = unit_gates(read.source.name, read.dim, read.labels)
        if units is None:
            continue
        key = (source.name, read.dim, tuple(units.columns.tolist()))
        if key not in made:
            name = f"bp_gate_{len(made)}"
            graph.add_submodule(name, Gate(units.columns, units.dim, units.rows, units.inner, units.outer))
            with graph.graph.inserting_before(node):
                made[key] = graph.graph.call_module(name, (source, gates))
        node.replace_input_with(source, made[key])
    for number, section in enumerate(structure.sections):
        branch = section.branches[training]
        node, source = by_name.get(branch.add), values.get(branch.last)
        if node is None or source is None:
            continue
        rows, dims = found.rows.get(branch.last, (None, 1, 1)), len(found.sizes[found_node[branch.last]])
        columns, dim = torch.tensor([structure.first_section + section.unit]), 0 if rows[0] else dims - 1
        name = f"bp_section_{number}"
        graph.add_submodule(name, Gate(columns, dim, *rows))
        with graph.graph.inserting_before(node):
            node.replace_input_with(source, graph.graph.call_module(name, (source, gates)))
    graph.graph.lint()
    follow_rates_(graph, structure.captured, training)
    graph.recompile()
    return graph


def _extended(alive: Tensor) -> Tensor:
    """(units + 1,), with a last one for what belongs to no unit; index −1 finds it."""
    return torch.cat([alive, torch.ones(1, dtype=torch.bool)])
