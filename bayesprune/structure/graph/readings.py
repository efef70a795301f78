"""Readings: what the readers of a network's units are handed, while it runs on given rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from bayesprune.errors import SelectionError
from bayesprune.rows import Inputs
from bayesprune.structure.graph import GraphNetwork
from bayesprune.structure.graph.analysis.weights import kind_of, listed
from bayesprune.structure.graph.gating.pack import living, pack_gates
from bayesprune.structure.graph.rules.call import arguments
from bayesprune.structure.graph.rules.gates import Gate
from bayesprune.structure.groups import ByGroup
from bayesprune.structure.running import evaluating

ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Reading:
    """A value that operations read units from.

    Attributes:
        name: of the place; the same before and after weights change.
        values: (columns, samples): what every column of the readers is multiplied by. Samples are rows
            and, of a convolution, positions.
        units: group → (columns,), original id of the unit that a column belongs to; −1 for none of this
        group's. weights: names of the weights of linear maps and convolutions that sum over these columns,
        dimension 1. other: readers whose sums are none of a weight's columns, by name: they cannot be
        re-weighted.
    """

    name: str
    values: Tensor = field(repr=False)
    units: dict[str, Tensor] = field(repr=False)
    weights: tuple[str, ...]
    other: tuple[str, ...] = ()


def readings(
    network: GraphNetwork,
    rows: Inputs,
    gates: Mapping[str, Tensor] | None = None,
    only: str | None = None,
) -> list[Reading]:
    """Run a network in evaluation, and keep what readers of its units are handed.

    Args:
        network: left alone.
        rows: (rows, ...), inputs.
        gates: group → (size,), zeros and ones; groups not named are open.
        only: name of the one place that is asked for.

    Returns:
        Readings in the order in which the network gets to them; values in float64 on the CPU.

    Raises:
        SelectionError: values that are not finite; the groups are named.
    """
    parts: dict[str, list[Reading]] = {}
    with evaluating(network):
        for batch in rows.split(ROWS_AT_ONCE):
            for reading in _of_graph(network, batch, gates, only):
                parts.setdefault(reading.name, []).append(reading)
    whole = [
        Reading(p[0].name, torch.cat([r.values for r in p], 1), p[0].units, p[0].weights, p[0].other)
        for p in parts.values()
    ]
    strange = [r for r in whole if not bool(torch.isfinite(r.values).all())]
    if strange:
        groups = sorted({group for r in strange for group in r.units})
        raise SelectionError(
            f"Activations of {', '.join(map(repr, groups))} are not all finite at the {len(rows)} rows "
            "given: look at the rows and at the network's weights."
        )
    return whole


def unit_vectors(network: GraphNetwork, alive: Mapping[str, Tensor], rows: Inputs) -> dict[str, Tensor]:
    """What the readers of each unit see of it, over all rows.

    Args:
        network: left alone.
        alive: group → (group.size,), bool, units that are there.
        rows: (rows, ...), inputs.

    Returns:
        group → (group.size, numbers): row after row; of a filter, position after position. They are taken
        where all units of the group are read together; where no reader sees all of them, readers stand
        side by side, with zeros for those that do not see a unit. Zeros for removed units. Sections have
        none.
    """
    found = readings(network, rows)
    vectors: dict[str, Tensor] = {}
    for group in network.groups:
        parts = []
        for reading in found:
            if group.name in reading.units:
                part, seen = _vectors(reading, group.name, group.size)
                parts.append(part)
                if bool(seen[alive[group.name]].all()):
                    parts = [part]
                    break
        if parts:
            vectors[group.name] = torch.cat(parts, 1)
    return vectors


def _vectors(reading: Reading, group: str, size: int) -> tuple[Tensor, Tensor]:
    """(size, most columns of a unit · samples), and (size,) whether a unit is there at all."""
    ids, samples = reading.units[group], reading.values.shape[1]
    own = ids >= 0
    counts = torch.bincount(ids[own], minlength=size)
    stacked = reading.values.new_zeros(size, int(counts.max()), samples)
    filled = torch.zeros(size, dtype=torch.long)
    for column in own.nonzero().squeeze(1).tolist():
        unit = int(ids[column])
        stacked[unit, filled[unit]] = reading.values[column]
        filled[unit] += 1
    return stacked.flatten(1), counts > 0


def _of_graph(
    network: GraphNetwork, rows: Inputs, gates: Mapping[str, Tensor] | None, only: str | None
) -> Iterator[Reading]:
    """Every gate of the graph: what it lets through."""
    graph = network._graphs[False]
    recorder = _Recorder(graph, only)
    given = None if gates is None else {g: z.to(like_of(network)) for g, z in gates.items()}
    flat = pack_gates(network.groups, living(network.groups, network.alive), given) if given else None
    like, tensors = like_of(network), (rows,) if isinstance(rows, Tensor) else rows.tensors
    inputs = (x.to(like) if x.is_floating_point() else x.to(like.device) for x in tensors)
    recorder.run(*inputs, flat, None)
    names = listed(network.network)
    for node, value in recorder.seen:
        gate = graph.get_submodule(str(node.target))
        assert isinstance(gate, Gate)
        weights, other = [], []
        for user in node.users:
            target = _weight_of(user, gate.dim, value.ndim)
            name = None if target is None else names.get(id(attribute(graph, target)))
            if name is None:
                other.append(user.name)
            else:
                weights.append(name)
        yield Reading(
            node.name,
            _by_column(value, gate.dim),
            _units(network, gate),
            tuple(weights),
            tuple(other),
        )


class _Recorder(fx.Interpreter):
    """Runs a graph, and keeps the outputs of its gates."""

    def __init__(self, graph: fx.GraphModule, only: str | None) -> None:
        super().__init__(graph)
        self.only = only
        self.seen: list[tuple[fx.Node, Tensor]] = []

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op == "call_module" and self.only in (None, n.name):
            gate = self.fetch_attr(str(n.target))
            if isinstance(gate, Gate) and not str(n.target).startswith("bp_section"):
                self.seen.append((n, result))
        return result


def _weight_of(user: fx.Node, dim: int, ndim: int) -> str | None:
    """The weight whose dimension 1 a linear map or ordinary convolution sums the gated columns over."""
    if user.op == "call_module" and str(user.target).startswith("bp_linear_"):
        kind, weight = "linear", user.args[1]
    else:
        kind, given = kind_of(user), arguments(user) if user.op == "call_function" else {}
        weight = given.get("weight")
        if kind in ("conv1d", "conv2d", "conv3d", "convolution") and (
            given.get("groups", 1) != 1 or given.get("transposed", False)
        ):
            return None
    if isinstance(weight, fx.Node) and weight.op == "call_module":
        weight = weight.args[0]  # where noise would act
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return None
    if kind == "linear":
        return str(weight.target) if dim % ndim == ndim - 1 else None
    return str(weight.target) if kind.startswith("conv") and dim == 1 else None


def attribute(graph: fx.GraphModule, target: str) -> Any:
    """What a graph's node of that target takes from it."""
    found: Any = graph
    for part in target.split("."):
        found = getattr(found, part)
    return found


def _units(network: GraphNetwork, gate: Gate) -> dict[str, Tensor]:
    """group → (columns,), original unit ids, −1 elsewhere; only groups that are there."""
    owners = gate.columns if gate.owners is None else gate.owners
    by_group = ByGroup({group.name: group.size for group in network.groups})
    return dict(by_group(owners.cpu(), gate.columns.cpu()))


def _by_column(value: Tensor, dim: int) -> Tensor:
    """(columns, samples), float64 on the CPU."""
    return value.detach().movedim(dim, 0).flatten(1).double().cpu()


def like_of(network: nn.Module) -> Tensor:
    """A parameter, for the type and device that inputs need."""
    return next(p for p in network.parameters() if p.is_floating_point())
