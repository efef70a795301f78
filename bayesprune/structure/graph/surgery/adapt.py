"""A graph after a cut: sizes that were written down as numbers follow the units that are left."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from bayesprune.errors import RemovalError
from bayesprune.structure.graph.analysis.sections import INSTEAD, drop_sections
from bayesprune.structure.graph.analysis.selecting import selected
from bayesprune.structure.graph.analysis.structure import Structure
from bayesprune.structure.graph.capture.dropout import set_rates_
from bayesprune.structure.graph.capture.late_graph import LateGraph
from bayesprune.structure.graph.rules.call import Raw, argument_node, arguments
from bayesprune.structure.graph.rules.labels import compact
from bayesprune.structure.graph.rules.shape import MOVES
from bayesprune.structure.graph.surgery.boxes import box, take
from bayesprune.structure.graph.surgery.renumber import rewritten_, set_argument_

aten = torch.ops.aten
NOTHING_LEFT = "nothing is left"


REFILLS = "bayesprune_refills"
"""In a graph's notes: (operation, what it reads) → the node that reads it instead and fills zeros in."""

LIKE = {aten.view_as.default, aten.reshape_as.default, aten.expand_as.default}
"""Operations with no size written down: they take that of another value."""

EVERYWHERE = "bp_place_"
"""Begins the names of constants that are positions among all numbers of a row: of one size of the inputs."""

COPIES = {"clone", "contiguous", "detach", "alias", "lift_fresh_copy"}
"""Operations that need not be run on a value that is gathered later on."""


class CannotAdapt(RemovalError):
    """An operation that cannot follow a cut: its place, and the labels of what it moves."""

    def __init__(self, node: fx.Node, reason: str) -> None:
        super().__init__(
            f"Cannot remove these units: at {node.name!r} {reason}. Nothing was removed; list their groups "
            "in exclude=."
        )
        self.node = node
        self.reason = reason


@dataclass
class _Scattered:
    """A value whose surviving numbers form no box: it is not computed; who reads it gathers from its source.

    Attributes:
        source: the last value that is computed.
        positions: (shape of the value), the position in the source, before the cut, of every number.
    """

    source: fx.Node
    positions: Tensor


def adapted(structure: Structure, training: bool, alive: Tensor) -> fx.GraphModule:
    """The graph of one mode for a network that has lost units.

    Args:
        structure: of the whole network.
        training: which mode.
        alive: (units,), bool.

    Returns:
        A new graph over the (cut) network's parameters.

    Raises:
        CannotAdapt: an operation that has no form for this cut.
    """
    original = structure.captured.graphs[training]
    graph = LateGraph(original, copy.deepcopy(original.graph))
    adapt_(graph, structure, training, alive)
    if not bool(alive.all()):
        graph.graph.lint()
    graph.recompile()
    return graph


def tried(structure: Structure, training: bool, alive: Tensor) -> nn.Module:
    """As ``adapted``, for a look: a module that has the graph as ``graph``, and none of the parameters.

    Raises:
        CannotAdapt: an operation that has no form for this cut.
    """
    holder: Any = nn.Module()
    holder.graph, holder.meta = copy.deepcopy(structure.captured.graphs[training].graph), {}
    adapt_(holder, structure, training, alive)
    return holder  # type: ignore[no-any-return]


def adapt_(graph: Any, structure: Structure, training: bool, alive: Tensor) -> None:
    """Let a copy of a mode's graph follow the units that are left.

    Args:
        graph: a module that has it as ``graph``; changed in place.
        structure: of the whole network.
        training: which mode.
        alive: (units,), bool.

    Raises:
        CannotAdapt: an operation that has no form for this cut.
    """
    original = structure.captured.graphs[training]
    set_rates_(graph, structure.captured, training)
    if bool(alive.all()):
        return
    worker = _Worker(structure, training, torch.cat([alive, torch.ones(1, dtype=torch.bool)]), graph)
    twins = list(zip(original.graph.nodes, list(graph.graph.nodes), strict=True))
    gone = drop_sections(structure, training, alive, graph)
    for old, new in twins:
        if old.name not in gone:
            worker.visit(old, new)
    graph.graph.eliminate_dead_code()


class _Worker:
    def __init__(self, structure: Structure, training: bool, alive: Tensor, graph: Any) -> None:
        self.found = structure.findings[training]
        self.unit_of = structure.unit_of
        self.alive = alive
        self.graph = graph
        self.rows = len(structure.captured.example[0])
        self.by_name = {node.name: node for node in self.found.of}
        self.arguments: dict[fx.Node, list[tuple[bool, str, int | None, int, Tensor]]] = {}
        for refilled, found in ((False, self.found.selected), (True, self.found.refilled)):
            for (node, name, at), (dim, labels) in found.items():
                self.arguments.setdefault(node, []).append((refilled, name, at, dim, labels))
        self.norms = {norm.node: norm.labels for norm in reversed(self.found.norms)}
        self.scattered: dict[fx.Node, _Scattered] = {}
        self.chosen: dict[tuple[fx.Node, int, tuple[int, ...]], fx.Node] = {}
        self.parts: dict[fx.Node, tuple[fx.Node, list[Tensor]]] = {}  # source and positions of each result
        self.twin: dict[fx.Node, fx.Node] = {}

    def mask(self, labels: Tensor) -> Tensor:
        """Which numbers survive, in memory that repeats where that of the labels does."""
        return self.alive[self.unit_of[compact(labels)]].expand(labels.shape)

    def visit(self, old: fx.Node, new: fx.Node) -> None:
        self.twin[old] = new
        if old.op != "call_function" or not hasattr(old.target, "_schema"):
            if old.op == "call_function" and old.args[0] in self.parts:
                origin, positions = self.parts[old.args[0]]  # type: ignore[index]
                self._place(old, new, origin, positions[int(str(old.args[1]))])
            elif old.op == "placeholder" and self._loses(old):
                self._read_less(old, new)
            else:
                self._check_inputs(old)
            return
        kind = old.target._schema.name.removeprefix("aten::")
        if old in self.found.group_counts:
            name = "num_groups" if kind == "group_norm" else "groups"
            set_argument_(new, name, int(self.mask(self.found.group_counts[old]).sum()))
        if old in self.found.pads:
            self._pad(old, new)
        for refilled, name, at, dim, labels in self.arguments.get(old, ()):
            self._follow(new, (name, at), dim, labels, refilled)
        if old in self.found.expanded:
            self._expand(old, new, kind)
        if kind in ("layer_norm", "rms_norm") and old in self.norms:
            labels = self.norms[old]
            set_argument_(new, "normalized_shape", [int(self.mask(labels).sum())])
        if kind in COPIES and old.args[0] in self.scattered:
            self.scattered[old] = self.scattered[old.args[0]]  # type: ignore[index]
        elif kind in MOVES and self._touched(old):
            self._move(old, new, kind)
        else:
            self._check_inputs(old)

    def _pad(self, old: fx.Node, new: fx.Node) -> None:
        """As many zeros before and after as there are units left of them."""
        pads = list(arguments(old)["pad"])
        at = next(i for i in range(0, len(pads), 2) if pads[i] or pads[i + 1])
        pads[at : at + 2] = [int(self.mask(labels).sum()) for labels in self.found.pads[old]]
        set_argument_(new, "pad", pads)

    def _expand(self, old: fx.Node, new: fx.Node, kind: str) -> None:
        """A parameter is repeated for as many units as are left."""
        name = "repeats" if kind == "repeat" else "size"
        sizes = list(arguments(new)[name])
        for dim, labels in self.found.expanded[old].items():
            sizes[dim] = int(self.mask(labels).sum())
        set_argument_(new, name, sizes)

    def _follow(
        self, new: fx.Node, argument: tuple[str, int | None], dim: int, labels: Tensor, refilled: bool
    ) -> None:
        """An argument is read where the units are that it meets; or with zeros where units have gone."""
        (name, at), stays = argument, self.mask(labels)
        given = arguments(new).get(name)
        source = given if at is None else given[at]  # type: ignore[index]
        if not isinstance(source, fx.Node) or bool(stays.all()):
            return
        if refilled:
            value = self._filled(new, source, dim, stays)
        else:
            key = (source, dim, (*labels.tolist(), *stays.tolist()))
            if key not in self.chosen:
                self.chosen[key] = selected(self.graph, new, source, (dim, labels, stays), self.rows)
            value = self.chosen[key]
        set_argument_(new, name, value if at is None else [*given[:at], value, *given[at + 1 :]])  # type: ignore[index]

    def _filled(self, new: fx.Node, source: fx.Node, dim: int, stays: Tensor) -> fx.Node:
        """One zero behind what is left, read wherever a unit has gone."""
        ndim = self.found.sizes[self.by_name[source.name]]
        pads = [0, 0] * (len(ndim) - 1 - dim) + [0, 1]
        index = torch.full((len(stays),), int(stays.sum()))
        index[stays] = torch.arange(int(stays.sum()))
        with self.graph.graph.inserting_before(new):
            padded = self.graph.graph.call_function(aten.constant_pad_nd.default, (source, pads))
        self.graph.meta.setdefault(REFILLS, {})[new.name, source.name] = padded.name
        return self._picked(new, padded, dim, index)

    def _picked(self, new: fx.Node, source: fx.Node, dim: int, index: Tensor) -> fx.Node:
        """A value's numbers at some indices; once for all that read the same ones."""
        key = (source, dim, tuple(index.tolist()))
        if key not in self.chosen:
            buffer = f"bp_index_{new.name}_{len(self.chosen)}"
            self.graph.register_buffer(buffer, index, persistent=False)
            with self.graph.graph.inserting_before(new):
                where = self.graph.graph.get_attr(buffer)
                read = (source, dim, where)
                self.chosen[key] = self.graph.graph.call_function(aten.index_select.default, read)
        return self.chosen[key]

    def _check_inputs(self, old: fx.Node) -> None:
        for source in old.all_input_nodes:
            if source in self.scattered:
                raise CannotAdapt(source, "the units that are left form no box")

    def _touched(self, old: fx.Node) -> bool:
        nodes = [old, *(n for n in old.all_input_nodes if n in self.found.sizes)]
        return any(n in self.scattered or self._loses(n) for n in nodes)

    def _loses(self, node: fx.Node) -> bool:
        kept = self._box(node)
        return kept is None or not all(bool(line.all()) for line in kept)

    def _box(self, node: fx.Node) -> list[Tensor] | None:
        """For each dimension of a value which indices survive; None where these form no box."""
        return self._box_of(self.found.of[node])

    def _box_of(self, labels: Any) -> list[Tensor] | None:
        if isinstance(labels, Raw):
            return [self._line(labels, d) for d in range(len(labels.shape))]
        return box(self.mask(labels)) if isinstance(labels, Tensor) else []

    def _line(self, raw: Raw, dim: int) -> Tensor:
        """Which indices survive along a dimension of a parameter: all, where no rule asked for labels."""
        if raw.dims[dim] not in self.found.labels.starts:
            return torch.ones(raw.shape[dim], dtype=torch.bool)
        return self.mask(raw.along(self.found.labels, dim))

    def _read_less(self, old: fx.Node, new: fx.Node) -> None:
        """An input comes as it always did: what is left of it is read from it."""
        kept = box(self.mask(self.found.of[old]))
        assert kept is not None  # inputs are units along one dimension
        dim = next(d for d, line in enumerate(kept) if not bool(line.all()))
        name = f"bp_index_{new.name}"
        self.graph.register_buffer(name, kept[dim].nonzero().squeeze(1), persistent=False)
        last = [node for node in self.graph.graph.nodes if node.op == "placeholder"][-1]
        with self.graph.graph.inserting_after(last):
            where = self.graph.graph.get_attr(name)
        with self.graph.graph.inserting_after(where):
            picked = self.graph.graph.call_function(aten.index_select.default, (new, dim, where))
        new.replace_all_uses_with(picked, delete_user_cb=lambda user: user is not picked)
        self.twin[old], self.by_name[picked.name] = picked, old
        self.graph.meta.setdefault(INSTEAD, {})[old.name] = picked.name

    # ---- operations that move numbers

    def _move(self, old: fx.Node, new: fx.Node, kind: str) -> None:
        if kind in ("cat", "concat", "stack", "hstack", "vstack"):
            self._check_inputs(old)
            return  # no size is written down
        source = argument_node(old, "self")
        if source is None or old in self.found.expanded:
            self._check_inputs(old)
            return
        outputs = self.found.of[old]
        if isinstance(outputs, list):
            self._split(old, new, source, outputs)
            return
        if isinstance(outputs, Tensor) and not outputs.numel():
            return  # nothing was there before either
        kept, origin = self._box(old), self.scattered.get(source)
        if kept is not None and origin is None and self._try(old, new, kind, source, kept):
            return
        self._place(old, new, origin.source if origin else source, self._positions(old, source, origin))

    def _place(self, old: fx.Node, new: fx.Node, source: fx.Node, positions: Tensor) -> None:
        """Gather a value from the last one that is computed, or leave that to its readers if it is no box."""
        kept = self._box(old)
        if kept is None:
            self.scattered[old] = _Scattered(source, positions)
        else:
            self._gather(old, new, source, positions, kept)

    def _positions(self, old: fx.Node, source: fx.Node, origin: _Scattered | None) -> Tensor:
        """(shape of the value), where its numbers come from in the last computed value."""
        size = self.found.sizes[source]
        before = origin.positions if origin else torch.arange(size.numel()).reshape(size)
        return self._run(old, before)

    def _run(self, old: fx.Node, value: Tensor, other: fx.Node | None = None) -> Tensor:
        """The operation on another tensor, with its own other arguments or those of ``other``."""
        node = old if other is None else other
        if node.target in LIKE:
            return self._run_like(old, value, other is not None)
        rest = {k: fx.node.map_arg(v, self._value) for k, v in arguments(node).items() if k != "self"}
        if str(node.target).startswith(("aten.view", "aten._unsafe_view")):
            return value.reshape(rest["size"])
        moved: Tensor = node.target(value, **rest)  # type: ignore[operator]
        return moved

    def _run_like(self, old: fx.Node, value: Tensor, cut: bool) -> Tensor:
        """An operation that takes its shape from another value, which may be cut too."""
        like = argument_node(old, "other")
        assert like is not None
        kept = self._box(like)
        if kept is None:
            raise CannotAdapt(old, "the units that are left form no box")
        shape = [int(line.sum()) for line in kept] if cut else list(self.found.sizes[like])
        return value.expand(shape) if old.target is aten.expand_as.default else value.reshape(shape)

    def _value(self, node: fx.Node) -> Any:
        """A size that depends on the rows, as it was in the example; or a constant tensor."""
        old = self.by_name[node.name]
        if old not in self.found.constants:
            raise CannotAdapt(old, "it is moved about by a computed index")
        return self.found.constants[old]

    def _try(self, old: fx.Node, new: fx.Node, kind: str, source: fx.Node, kept: list[Tensor]) -> bool:
        """Write new numbers into the operation, and see whether it then moves what is left as it should."""
        inside = self._box(source)
        if inside is None:
            return False
        size = self.found.sizes[source]
        whole = torch.arange(size.numel()).reshape(size)
        expected = take(self._run(old, whole), kept)
        backup = (new.target, new.args, dict(new.kwargs))
        if not rewritten_(new, kind, inside, kept):
            return False
        try:
            actual = self._run(old, take(whole, inside), new)
        except (RuntimeError, IndexError):
            actual = None
        if actual is not None and actual.shape == expected.shape and bool((actual == expected).all()):
            return True
        new.target, new.args, new.kwargs = backup[0], backup[1], backup[2]
        return False

    def _split(self, old: fx.Node, new: fx.Node, source: fx.Node, outputs: list[Tensor]) -> None:
        """Several results: sizes along one dimension."""
        kind = old.target._schema.name  # type: ignore[union-attr]
        inside, boxes = self._box(source), [self._box_of(o) for o in outputs]
        dim: int = arguments(old).get("dim", 0) % len(self.found.sizes[source])
        lost = inside is not None and not bool(inside[dim].all())
        if (
            source in self.scattered
            or inside is None
            or any(b is None for b in boxes)
            or (kind == "aten::unbind" and lost)
        ):
            origin = self.scattered.get(source)
            positions = self._positions(old, source, origin)
            self.parts[old] = (origin.source if origin else source, list(positions))
            return
        if kind == "aten::unbind" or not lost:
            return  # its sizes stay what they are
        sizes = [int(b[dim].sum()) for b in boxes]  # type: ignore[index]
        new.target, new.args, new.kwargs = aten.split_with_sizes.default, (new.args[0], sizes, dim), {}

    def _gather(
        self, old: fx.Node, new: fx.Node, source: fx.Node, positions: Tensor, kept: list[Tensor]
    ) -> None:
        """Read the surviving numbers one by one from the last value that is computed."""
        inside = self._box(source)
        size = self.found.sizes[source]
        if not all(bool(line.any()) for line in kept):
            raise CannotAdapt(old, NOTHING_LEFT)
        whole = isinstance(self.found.of[source], Raw)  # a parameter has no rows
        if inside is None or not (whole or self._rows_first(size, positions)):
            raise CannotAdapt(
                old, "the units that are left form no box, and rows are not the first dimension"
            )
        after = torch.full((size.numel(),), -1)
        survivors = take(torch.arange(size.numel()).reshape(size), inside)
        after[survivors.reshape(-1)] = torch.arange(survivors.numel())
        index = after[take(positions, kept)]
        first = int(not whole)
        if not whole and self._pick(new, self.twin[source], index, survivors.shape):
            return
        name = f"{'bp_index_' if whole else EVERYWHERE}{new.name}"
        self.graph.register_buffer(name, (index if whole else index[0]).reshape(-1), persistent=False)
        origin = self.twin[source]
        with self.graph.graph.inserting_before(new):
            flat = self.graph.graph.call_function(aten.flatten.using_ints, (origin, first))
            where = self.graph.graph.get_attr(name)
            picked = self.graph.graph.call_function(aten.index_select.default, (flat, first, where))
            rows = [] if whole else [self.graph.graph.call_function(aten.sym_size.int, (origin, 0))]
        new.target, new.args, new.kwargs = aten.reshape.default, (picked, [*rows, *index.shape[first:]]), {}

    def _pick(self, new: fx.Node, origin: fx.Node, index: Tensor, shape: torch.Size) -> bool:
        """Read along one dimension, if all others stay as they are: at any size of those."""
        if index.ndim != len(shape):
            return False
        numbers = torch.arange(shape.numel()).reshape(shape)
        for dim in range(1, len(shape)):
            if index.shape[:dim] + index.shape[dim + 1 :] != shape[:dim] + shape[dim + 1 :]:
                continue
            line = tuple(slice(None) if d == dim else 0 for d in range(len(shape)))
            places = index[line] // numbers.stride(dim)
            if bool((numbers.index_select(dim, places.clamp(0, shape[dim] - 1)) == index).all()):
                name = f"bp_index_{new.name}"
                self.graph.register_buffer(name, places, persistent=False)
                with self.graph.graph.inserting_before(new):
                    where = self.graph.graph.get_attr(name)
                new.target, new.args, new.kwargs = aten.index_select.default, (origin, dim, where), {}
                return True
        return False

    def _rows_first(self, size: torch.Size, positions: Tensor) -> bool:
        """Whether rows are the first dimension before and after, and move alike."""
        if size[0] != self.rows or positions.shape[0] != self.rows:
            return False
        inner = size.numel() // self.rows
        offset = torch.arange(self.rows).reshape(-1, *[1] * (positions.ndim - 1)) * inner
        return bool((positions - offset == positions[:1]).all()) and bool((positions[0] < inner).all())
