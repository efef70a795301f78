"""Where the rows of a batch are in every value that a network computes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from bayesprune.structure.graph.capture import Inputs


def row_dimensions(graph: fx.GraphModule, example: Inputs) -> dict[str, tuple[int, int, int]]:
    """Find the rows in every value, by changing the first row of the inputs and looking what changes.

    Args:
        graph: of one mode.
        example: its inputs.

    Returns:
        Name of a value → (the dimension that its rows run along, how often each row comes one after the
        other, how often the whole sequence comes). Values without such a dimension are left out.
    """
    first = _Values(graph)
    with torch.no_grad():
        first.run(*(x.clone() for x in example))
    second = _run_changed(graph, example)
    found: dict[str, tuple[int, int, int]] = {}
    if second is None:
        return found
    for name, value in first.values.items():
        place = _row_dimension(value != second.values[name], len(example[0]))
        if place is not None:
            found[name] = place
    return found


def _run_changed(graph: fx.GraphModule, example: Inputs) -> _Values | None:
    """The graph's values with another first row; None where no other row could be made up.

    Integers name rows of tables whose length is not known: numbers that occur are tried first, in all places
    alike, so that a sum over places changes too; then their neighbours.
    """
    for way in range(4):
        other = tuple(torch.cat([_changed(x[:1], x, way), x[1:]]) for x in example)
        if all(torch.equal(x, y) for x, y in zip(example, other, strict=True)):
            continue
        values = _Values(graph)
        try:
            with torch.no_grad():
                values.run(*other)
        except (IndexError, RuntimeError):
            continue
        return values
    return None


def _changed(row: Tensor, x: Tensor, way: int) -> Tensor:
    if x.is_floating_point():
        return row + torch.rand_like(row)
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


class _Values(fx.Interpreter):
    """Runs a graph with every row on its own, and keeps what readers read."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.values[n.name] = result.clone()
        return result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        name = getattr(target, "_schema", None)
        kind = name.name if name is not None else ""
        if kind == "aten::batch_norm":
            if args[3] is None:  # without statistics of its own it mixes rows, always
                return args[0]
            args = (*args[:5], False, *args[6:])
        elif kind == "aten::instance_norm":
            args = (*args[:3], None, None, True, *args[6:])
        elif kind.endswith("dropout") or (kind == "aten::add_" and not args[0].is_floating_point()):
            return args[0]
        return super().call_function(target, args, kwargs)
