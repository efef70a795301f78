"""Which units a network has: run it once, with labels beside the numbers."""

from __future__ import annotations

import contextlib
import fnmatch
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from bayesprune.errors import NothingToGateError, SettingsError
from bayesprune.structure.graph import (  # noqa: F401 (importing registers the rules)
    compute,
    einsum,
    movement,
    norms,
    products,
    recurrent,
    reductions,
)
from bayesprune.structure.graph.branches import Section, find_branches
from bayesprune.structure.graph.call import RULES, Call, Findings, Raw, operation, schema_names
from bayesprune.structure.graph.capture import Captured, Inputs, capture, find_tensor
from bayesprune.structure.graph.labels import FIXED, Frozen, Labels, compact
from bayesprune.structure.graph.pointwise import pointwise
from bayesprune.structure.graph.rows import row_dimensions
from bayesprune.structure.graph.twin import WouldWrite, check_writes
from bayesprune.structure.groups import Group, Slot
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
    """

    captured: Captured
    findings: dict[bool, Findings]
    unit_of: Tensor
    groups: tuple[Group, ...]
    slots: tuple[Slot, ...]
    frozen: tuple[Frozen, ...]
    sections: tuple[Section, ...] = ()
    terms: tuple[Term, ...] = ()

    @property
    def first_section(self) -> int:
        """Position of the first section among all units."""
        return sum(group.size for group in self.groups[: -1 if self.sections else None])


def find_structure(
    network: nn.Module, example: Tensor | Inputs, exclude: Iterable[str] = (), lent: bool = False
) -> Structure:
    """Find the units of any network.

    Args:
        network: the user's; left alone.
        example: (rows, ...), a batch that it accepts, or a tuple of them.
        exclude: names or globs of groups that must stay whole.
        lent: whether the copy's parameters may lie in the memory of the user's, for reading.

    Returns:
        Its structure.

    Raises:
        UnsupportedNetworkError: it cannot be traced.
        SettingsError: an exclusion that matches no group.
    """
    if lent:
        with contextlib.suppress(WouldWrite):
            return _found(capture(network, example, lent=True), exclude)
    return _found(capture(network, example), exclude)


def _found(captured: Captured, exclude: Iterable[str]) -> Structure:
    labels, findings = Labels(), {}
    state = {name: tensor.clone() for name, tensor in captured.network.named_buffers()}
    for training, graph in captured.graphs.items():
        findings[training] = Findings(labels)
        with torch.no_grad(), torch.random.fork_rng():
            _Reader(graph, captured, findings[training]).run(*(x.clone() for x in captured.example))
            branches = find_branches(graph, captured.network, findings[training].sizes)
            findings[training].branches = branches
            wanted = {r.source.name for r in (*findings[training].reads, *findings[training].norms)}
            wanted |= {branch.last for branch, _ in branches.values()}
            wanted |= _vectors(graph, findings[training])
            findings[training].rows = row_dimensions(graph, captured.example, wanted)
    for name, tensor in captured.network.named_buffers():
        tensor.copy_(state[name])
    return _solved(captured, findings, exclude)


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
    for value in (node, *node.all_input_nodes):
        for labels in _tensors(found.of[value]):
            found.labels.freeze(labels, node.name, reason)
    return _solved(structure.captured, structure.findings, exclude)


def _solved(captured: Captured, findings: dict[bool, Findings], exclude: Iterable[str]) -> Structure:
    labels = findings[True].labels
    classes, reasons = labels.solve()
    return _assemble(captured, findings, labels, classes, reasons, tuple(exclude))


class _Reader(fx.Interpreter):
    """Runs a graph on numbers and on labels side by side."""

    def __init__(self, graph: fx.GraphModule, captured: Captured, findings: Findings) -> None:
        super().__init__(graph)
        self.network, self.lent = captured.network, set(captured.lent)
        self.findings = findings

    def run_node(self, n: fx.Node) -> Any:
        values = fx.node.map_arg((n.args, n.kwargs), lambda m: self.env[m])
        if self.lent:
            check_writes(n.target, *values, self.lent)
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.findings.sizes[n] = result.shape
        if not isinstance(result, Tensor) or not (result.is_floating_point() or result.is_complex()):
            self.findings.constants[n] = result
        self.findings.of[n] = self._labels(n, values, result)
        return result

    def _labels(self, node: fx.Node, values: Any, result: Any) -> Any:
        if node.op == "get_attr":
            tensor = find_tensor(self.network, str(node.target))
            if tensor is not None:
                return Raw(
                    str(node.target), tensor.shape, tuple((str(node.target), d) for d in range(tensor.ndim))
                )
            return (
                torch.zeros((), dtype=torch.long).expand(result.shape) if isinstance(result, Tensor) else None
            )
        if node.op == "placeholder":
            return torch.zeros((), dtype=torch.long).expand(result.shape)
        if node.op == "output":
            for known in _tensors(self.known(node.args)):
                self.findings.labels.freeze(known, "output", "it is what the network returns")
            return None
        return self._call(node, values, result)

    def _call(self, node: fx.Node, values: Any, result: Any) -> Any:
        if not hasattr(node.target, "_schema"):  # arithmetic on sizes, or one of several results
            if getattr(node.target, "__name__", "") == "getitem":
                source = self.known(node.args[0])
                return source[int(str(node.args[1]))] if isinstance(source, list | tuple) else None
            return None
        if not isinstance(result, Tensor | list | tuple):
            return None  # a size, or a check
        names = schema_names(node)
        args = dict(zip(names, values[0], strict=False)) | values[1]
        known = dict(zip(names, self.known(node.args), strict=False)) | self.known(node.kwargs)
        self._check_alias(node, known)
        call = Call(node, args, known, result, self.findings, self.place(node, known))
        kind = operation(call)
        if not any(isinstance(k, Raw) or bool((k != FIXED).any()) for _, k, _ in call.tensors()):
            return call.fixed()
        if kind in RULES:
            return RULES[kind](call)
        if torch.Tag.pointwise in node.target.tags or kind in POINTWISE:  # type: ignore[union-attr]
            return pointwise(call)
        if kind.endswith("_like"):
            return movement.keep(call)
        return call.frozen_everything(f"{kind} has no rule yet")

    def _check_alias(self, node: fx.Node, known: dict[str, Any]) -> None:
        """What is changed in place through a view stays: the value that it is a view of changes too."""
        if not node.target._schema.is_mutable or not node.args or not isinstance(node.args[0], fx.Node):  # type: ignore[union-attr]
            return
        source = node.args[0]
        chain = []
        while _shares_memory(source):
            source = source.args[0]  # type: ignore[assignment]
            chain.append(source)
        if all(len(value.users) == 1 for value in chain):
            return  # nobody else sees the change
        for value in chain:
            reason = "it is changed in place through a view"
            for labels in _tensors([known, self.findings.of[value]]):
                self.findings.labels.freeze(labels, self.place(node, known), reason)

    def known(self, arguments: Any) -> Any:
        """Labels of arguments, in the arguments' structure."""
        return _known(arguments, self.findings.of)

    def place(self, node: fx.Node, known: dict[str, Any]) -> str:
        """How a message names an operation: by the parameter that it reads, else by the graph's name."""
        names = [k.name for k in known.values() if isinstance(k, Raw)]
        kind = str(node.target).removeprefix("aten.").partition(".")[0]
        return f"{names[0].rpartition('.')[0] or names[0]} ({kind})" if names else f"{node.name} ({kind})"


def _shares_memory(node: fx.Node) -> bool:
    """Whether a value may lie in the memory of the operation's first argument."""
    if node.op != "call_function" or not hasattr(node.target, "_schema") or not node.args:
        return False
    kind = str(node.target).removeprefix("aten.").partition(".")[0]
    return isinstance(node.args[0], fx.Node) and (kind in VIEWS or node.target._schema.is_mutable)


VIEWS = {"view", "permute", "transpose", "t", "select", "slice", "narrow", "squeeze", "unsqueeze", "expand",
         "unflatten", "flatten", "reshape", "split", "chunk", "unbind", "detach", "alias"}  # fmt: skip
"""Operations whose results may share memory with what they read."""

POINTWISE = {"aten.fill", "aten.masked_fill", "aten.where", "aten.lerp", "aten.addcmul", "aten.addcdiv",
             "aten.bernoulli", "aten.copy", "aten.relu6", "aten.hardtanh", "aten.rrelu", "aten.silu",
             "aten.mish", "aten.softplus", "aten.celu", "aten.selu", "aten.elu", "aten.clamp",
             "aten.rsub", "aten.hardswish", "aten.hardsigmoid", "aten.gelu", "aten.leaky_relu",
             "aten.threshold", "aten.log_sigmoid", "aten.erf", "aten.nan_to_num"}  # fmt: skip
"""Pointwise operations that carry no tag."""


def _known(arguments: Any, of: dict[fx.Node, Any]) -> Any:
    if isinstance(arguments, fx.Node):
        return of[arguments]
    if isinstance(arguments, list | tuple):
        return [_known(part, of) for part in arguments]
    if isinstance(arguments, dict):
        return {name: _known(part, of) for name, part in arguments.items()}
    return None


def _tensors(known: Any) -> Iterable[Tensor]:
    if isinstance(known, Tensor):
        yield known
    elif isinstance(known, list | tuple):
        for part in known:
            yield from _tensors(part)
    elif isinstance(known, dict):
        yield from _tensors(list(known.values()))


def _assemble(
    captured: Captured, findings: dict[bool, Findings], labels: Labels, classes: Tensor,
    reasons: dict[int, Frozen], exclude: tuple[str, ...],
) -> Structure:  # fmt: skip
    read = torch.zeros(len(classes), dtype=torch.bool)
    for found in findings.values():
        for r in found.reads:
            read[classes[r.labels]] = True
    signatures: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for place, (start, size) in labels.starts.items():
        for label in set(classes[start : start + size].tolist()):
            signatures[label].append(place)
    for number, members in enumerate(_parts(findings, classes)):
        for label in members:
            signatures[label].append((f"part/{number}", 0))
    kinds: dict[tuple[tuple[str, int], ...], list[int]] = defaultdict(list)
    for label in sorted(signatures):
        if label not in reasons and label != FIXED and bool(read[label]):
            kinds[tuple(signatures[label])].append(label)
    kinds = {kind: units for kind, units in kinds.items() if len(units) > 1}
    names = _names(captured, list(kinds))
    matched = {p for p in exclude if any(fnmatch.fnmatchcase(name, p) for name in names.values())}
    if missing := [p for p in exclude if p not in matched]:
        raise SettingsError(
            f"exclude={missing[0]!r} matches no group; there are {', '.join(names.values()) or 'none'}."
        )
    chosen = {k: u for k, u in kinds.items() if not any(fnmatch.fnmatchcase(names[k], p) for p in exclude)}
    unit_of, start = torch.full((len(classes),), -1), 0
    class_unit = torch.full((len(classes),), -1)
    for units in chosen.values():
        class_unit[torch.tensor(units)] = torch.arange(start, start + len(units))
        start += len(units)
    unit_of = class_unit[classes]
    unit_of[FIXED] = -1
    groups, slots = _groups(
        captured, findings, labels, unit_of, {names[k]: len(u) for k, u in chosen.items()}
    )
    return Structure(captured, findings, unit_of, groups, slots, tuple(dict.fromkeys(reasons.values())))


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
    if exclude:
        reasons = f"exclude={list(exclude)!r} lists all its groups"
    raise NothingToGateError(f"The network has nothing to gate: {reasons}.")


def _parts(findings: dict[bool, Findings], classes: Tensor) -> list[tuple[int, ...]]:
    """The units in every part that is taken out of a value, each set once.

    Units that are in different parts make groups of their own: as long as every group keeps a unit, no part
    loses its last one, and no cut is refused because nothing is left of a value.
    """
    found: dict[tuple[int, ...], None] = {}
    of = {node: known for f in findings.values() for node, known in f.of.items()}
    for node, known in of.items():
        kind = str(node.target).removeprefix("aten.").partition(".")[0]
        if node.op == "call_function" and kind in TAKES:
            source = of.get(node.args[0])  # type: ignore[arg-type]
            whole = _members(source, classes) if isinstance(source, Tensor) else ()
            for labels in _tensors(known):
                members = _members(labels, classes)
                if members != whole:
                    found[members] = None
    return list(found)


def _members(labels: Tensor, classes: Tensor) -> tuple[int, ...]:
    return tuple(label for label in torch.unique(classes[compact(labels)]).tolist() if label != FIXED)


TAKES = {"slice", "select", "narrow", "split", "split_with_sizes", "chunk", "tensor_split", "unbind", "index",
         "index_select", "hsplit", "vsplit", "diagonal", "unfold"}  # fmt: skip
"""Operations whose results may hold fewer units than what they read."""


def _names(captured: Captured, kinds: list[tuple[tuple[str, int], ...]]) -> dict[Any, str]:
    """A name for each kind of unit: the module of its first producer, else of its first parameter."""
    order = {name: i for i, (name, _) in enumerate(captured.network.named_parameters(remove_duplicate=False))}
    names: dict[Any, str] = {}
    for kind in kinds:
        produced = [t for t, d in kind if d == 0 and find_ndim(captured.network, t) > 1] or [
            t for t, _ in kind
        ]
        first = min(produced, key=lambda t: order.get(t, len(order)))
        name = first.rpartition(".")[0].replace(".", "_") or first
        base, number = name, 1
        while name in names.values():
            number += 1
            name = f"{base}_{number}"
        names[kind] = name
    return names


def find_ndim(network: nn.Module, name: str) -> int:
    """Dimensions of a parameter or buffer."""
    tensor = find_tensor(network, name)
    return tensor.ndim if tensor is not None else 0


def _groups(
    captured: Captured, findings: dict[bool, Findings], labels: Labels, unit_of: Tensor, sizes: dict[str, int]
) -> tuple[tuple[Group, ...], tuple[Slot, ...]]:
    read = {r.place for found in findings.values() for r in found.reads}
    slots, groups, first = [], [], 0
    for name, size in sizes.items():
        parameters = fan_in = fan_out = 0
        for (tensor, dim), (start, length) in labels.starts.items():
            units = unit_of[start : start + length]
            mine = (units >= first) & (units < first + size)
            if not bool(mine.any()):
                continue
            ids = torch.where(mine, units - first, -1)
            slots.append(Slot(tensor, dim, name, ids, reads=(tensor, dim) in read))
            whole = find_tensor(captured.network, tensor)
            if not isinstance(whole, nn.Parameter):
                continue
            share = round(whole.numel() / length * int(mine.sum()) / size)  # numbers that one unit has of it
            parameters += share
            if (tensor, dim) in read:
                fan_out += share
            elif dim == 0 and whole.ndim > 1:
                fan_in += share
        groups.append(Group(name, size, max(fan_in, 1), max(fan_out, 1), parameters))
        first += size
    return tuple(groups), tuple(slots)
