"""Where the rows of a batch are in every value that a network computes."""

from __future__ import annotations

from collections.abc import Container, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from bayesprune.structure.graph.capture.capture import Inputs


def row_dimensions(
    graph: fx.GraphModule, example: Inputs, wanted: Set[str]
) -> dict[str, tuple[int, int, int]]:
    """Find the rows in values, by changing the first row of the inputs and looking what changes.

    Units that are dead on one batch may not be on another, so several changes are tried.

    Args:
        graph: of one mode.
        example: its inputs.
        wanted: names of the values that are asked for; the others are not kept.

    Returns:
        Name of a value → (the dimension that its rows run along, how often each row comes one after the
        other, how often the whole sequence comes). Values without such a dimension are left out.
    """
    found: dict[str, tuple[int, int, int]] = {}
    for way in range(4):
        other = tuple(torch.cat([_changed(x[:1], x, way), x[1:]]) for x in example)
        if all(torch.equal(x, y) for x, y in zip(example, other, strict=True)):
            continue
        pairs = _Pairs(graph, wanted, len(example[0]))
        try:
            with torch.no_grad():
                pairs.run(*(_Pair(x.clone(), y) for x, y in zip(example, other, strict=True)))
        except (IndexError, RuntimeError):  # an integer that names no row of its table
            continue
        found = {**pairs.found, **found}
        if wanted <= found.keys():
            break
    return found


def _changed(row: Tensor, x: Tensor, way: int) -> Tensor:
    """Another row. Integers name rows of tables of unknown length: numbers that occur are tried first, in all
    places alike, so that a sum over places changes too; then their neighbours.
    """
    if x.is_floating_point():
        return row + (1, -1, 10, -10)[way] * torch.rand_like(row)
    if x.dtype == torch.bool:
        return ~row
    return (torch.full_like(row, int(x.max())), torch.full_like(row, int(x.min())), row + 1, row - 1)[way]


def _row_dimension(changed: Tensor, rows: int) -> tuple[int, int, int] | None:
    """The dimension along which what changed is the first of ``rows`` rows."""
    for dim in range(changed.ndim):
        size = changed.shape[dim]
        line = changed.movedim(dim, 0).reshape(size, -1).any(1)
        if size % rows or not bool(line.any()) or bool(line.all()):
            continue
        for inner in (n for n in range(1, size // rows + 1) if size % (n * rows) == 0):
            first = torch.arange(size) // inner % rows == 0
            if not bool(line[~first].any()) and bool(line.view(-1, rows * inner)[:, :inner].any(1).all()):
                return dim, inner, size // (rows * inner)
    return None


@dataclass(frozen=True)
class _Pair:
    """A value for the example, and for the example with its first row changed."""

    first: Any
    second: Any


class _Pairs(fx.Interpreter):
    """Runs a graph on both batches, operation by operation, with every row on its own.

    Values are compared as they come and freed when nobody reads them any more, so that two of a network's
    activations are held at a time and not all of them.
    """

    def __init__(self, graph: fx.GraphModule, wanted: Container[str], rows: int) -> None:
        super().__init__(graph)
        self.wanted, self.rows = wanted, rows
        self.found: dict[str, tuple[int, int, int]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, _Pair) and isinstance(result.first, Tensor) and n.name in self.wanted:
            place = _row_dimension(result.first != result.second, self.rows)
            if place is not None:
                self.found[n.name] = place
        return result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Both batches draw the same random numbers: what differs between them comes from the row alone."""
        state = torch.get_rng_state()
        first = self._on_rows(target, _side(args, "first"), _side(kwargs, "first"))
        torch.set_rng_state(state)
        return _Pair(first, self._on_rows(target, _side(args, "second"), _side(kwargs, "second")))

    def _on_rows(self, target: Any, args: Any, kwargs: Any) -> Any:
        """One operation on one batch; those that mix rows do not."""
        name = getattr(target, "_schema", None)
        kind = name.name if name is not None else ""
        if kind == "aten::batch_norm":
            if args[3] is None:  # without statistics of its own it mixes rows, always
                return args[0]
            args = (*args[:5], False, *args[6:])
        elif kind == "aten::instance_norm":
            args = (*args[:3], None, None, True, *args[6:])
        elif kind in ("aten::bernoulli", "aten::bernoulli_"):  # a mask that might hide the row
            return args[0].fill_(1) if kind.endswith("_") else torch.ones_like(args[0])
        elif kind == "aten::scaled_dot_product_attention":
            if len(args) > 4:
                args = (*args[:4], 0.0, *args[5:])
            else:
                kwargs = {**kwargs, "dropout_p": 0.0}
        elif kind.endswith("dropout") or (kind == "aten::add_" and not args[0].is_floating_point()):
            return args[0]
        return target(*args, **kwargs)


def _side(arguments: Any, side: str) -> Any:
    """The arguments of one of both batches."""
    if isinstance(arguments, _Pair):
        return getattr(arguments, side)
    if isinstance(arguments, list | tuple):
        return type(arguments)(_side(part, side) for part in arguments)
    if isinstance(arguments, dict):
        return {name: _side(part, side) for name, part in arguments.items()}
    return arguments
