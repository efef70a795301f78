"""What a pass of inference does, operation by operation: which units each hangs on, and what is held then."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from bayesprune.structure.graph.analysis.costs import contraction, products, sections_of
from bayesprune.structure.graph.analysis.structure import Structure
from bayesprune.structure.groups import WHOLE, Slot, key_of
from bayesprune.structure.terms import Term

RUNS = "call_function"


@dataclass(frozen=True)
class Operation:
    """One operation of the graph of evaluation.

    Attributes:
        name: of its node.
        terms: of the dense network, which sum up to 1: the share of its work that is there, by ``macs``.
    """

    name: str
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Held:
    """What a pass holds in memory beside the weights.

    Attributes:
        terms: of the dense network: results that are held at some time, in bytes, by ``macs``; those that are
            as large and hang on the same units are one.
        moments: how many of each term are held at a time; none of which another one has as many or more.
        fixed: bytes of the inputs, which are held all the time.
    """

    terms: tuple[Term, ...]
    moments: tuple[tuple[int, ...], ...]
    fixed: int


def operations(structure: Structure) -> tuple[Operation, ...]:
    """The operations of a pass, and how much of each is left.

    An operation of products is there as far as its products are; any other as far as its result is.

    Args:
        structure: of the whole network.
    """
    found = structure.findings[False]
    nodes = [n for n in structure.captured.graphs[False].graph.nodes if n.op == RUNS]
    return tuple(Operation(n.name, _shares(structure, n, n in found.sizes)) for n in nodes)


def _shares(structure: Structure, node: fx.Node, sized: bool) -> tuple[Term, ...]:
    found, sections = structure.findings[False], sections_of(structure, node)
    parts = list(products(structure, found, node)) if hasattr(node.target, "_schema") else []
    if not any(slots for _, slots in parts):
        parts = [_result(structure, node)] if sized else []
    total = sum(shape.numel() for shape, _ in parts)
    if not total:
        return (Term(torch.Size(), sections, macs=1.0),)
    return tuple(Term(shape, (*slots, *sections), macs=1 / total) for shape, slots in parts)


def _result(structure: Structure, node: fx.Node) -> tuple[torch.Size, tuple[Slot, ...]]:
    """Shape of a result, and the units that own its numbers."""
    found = structure.findings[False]
    axes = tuple(range(len(found.sizes[node])))
    return contraction(structure, found, [(node, axes)] if node in found.of else [])


def held(structure: Structure, graph: fx.GraphModule, inputs: Iterable[Tensor]) -> Held:
    """What a pass over a batch holds after each of its operations.

    A result is held from the operation that makes it to the last that reads it, or what shares its memory;
    inputs all the time, for whoever called has them; and results of the whole pass to its end.

    Args:
        structure: of the whole network.
        graph: of evaluation, of the whole network, over its parameters.
        inputs: (rows, ...) each, the batch.
    """
    look = _Look(graph)
    with torch.no_grad():
        look.run(*inputs)
    nodes = {node.name: node for node in structure.captured.graphs[False].graph.nodes}
    made = [life for life in look.lives.values() if life.bytes and not life.given]
    terms: dict[Any, Term] = {}
    kinds = [
        terms.setdefault(_kind(term), term) for term in (_bytes(structure, nodes, life) for life in made)
    ]
    numbers = {id(term): number for number, term in enumerate(terms.values())}
    moments = {(0,) * len(terms)}
    for moment in range(look.moment + 1):
        there = Counter(
            numbers[id(kind)]
            for life, kind in zip(made, kinds, strict=True)
            if life.first <= moment <= life.last
        )
        moments.add(tuple(there[number] for number in range(len(terms))))
    largest = (m for m in moments if not any(m != other and _within(m, other) for other in moments))
    fixed = sum(life.bytes for life in look.lives.values() if life.given)
    return Held(tuple(terms.values()), tuple(sorted(largest)), fixed)


def _kind(term: Term) -> Any:
    """What is the same of terms that cost the same."""
    owners = frozenset((slot.group, slot.dim == WHOLE, key_of(slot.unit_ids)) for slot in term.slots)
    return term.shape.numel() * term.macs, owners


def _within(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(few <= many for few, many in zip(one, other, strict=True))


@dataclass
class _Life:
    """From when to when memory is held."""

    bytes: int
    first: int
    last: int
    given: bool
    maker: str
    shape: torch.Size | None = None

    def seen(self, node: fx.Node, tensor: Tensor) -> None:
        """Note which value fills it: of that the units are known."""
        if self.shape is None and tensor.numel() * tensor.element_size() == self.bytes:
            self.maker, self.shape = node.name, tensor.shape


class _Look(fx.Interpreter):
    """Runs a graph, and notes by whom memory is made and read last."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph, garbage_collect_values=False)  # no memory is used twice
        self.lives: dict[int, _Life] = {}
        self.moment = 0
        self._own: dict[fx.Node, set[int]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.moment += n.op == RUNS
        if n.op == "get_attr":
            return result
        for source in n.all_input_nodes:
            for memory in self._own.get(source, ()):
                self.lives[memory].last = self.moment
        own = self._own[n] = set()
        for tensor in (leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)):
            storage = tensor.untyped_storage()
            if storage._cdata in self._weights():
                continue
            life = _Life(storage.nbytes(), self.moment, self.moment, n.op == "placeholder", n.name)
            self.lives.setdefault(storage._cdata, life)
            if isinstance(result, Tensor):
                self.lives[storage._cdata].seen(n, tensor)
            own.add(storage._cdata)
        return result

    def _weights(self) -> set[int]:
        values = (self.env[n] for n in self.env if n.op == "get_attr")
        return {v.untyped_storage()._cdata for v in values if isinstance(v, Tensor)}


def _bytes(structure: Structure, nodes: dict[str, fx.Node], life: _Life) -> Term:
    """What a result takes, by who owns its numbers; what is not known stays as it is."""
    node = nodes.get(life.maker)
    sections = () if node is None else sections_of(structure, node)
    if node is None or life.shape is None or node not in structure.findings[False].sizes:
        return Term(torch.Size(), sections, macs=float(life.bytes))
    _, slots = _result(structure, node)
    fine = tuple(slot for slot in slots if len(slot.unit_ids) == life.shape[slot.dim])
    return Term(life.shape, (*fine, *sections), macs=life.bytes / math.prod(life.shape))


def weighted(terms: Iterable[Term], weights: Callable[[int], tuple[float, ...]]) -> tuple[Term, ...]:
    """Terms that stand for something else than multiply-accumulates.

    Args:
        terms: whose ``macs`` say how much of it there is.
        weights: number of a term → what it stands for, to be put into ``Term.more``.
    """
    return tuple(
        replace(term, macs=0.0, more=tuple(term.macs * weight for weight in weights(number)))
        for number, term in enumerate(terms)
    )
