"""Operations across units as they are under gates: those of the open units alone.

Each formula has gates z in it so that z = 1 everywhere is the operation itself, and zeros and ones are the
operation without the closed units; in between it is smooth. So the plain operation is what is left of it
after a cut, exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map_only

from bayesprune.structure.graph.rules.gates import Gates, UnitGates

Formula = Callable[[Tensor, Tensor, dict[str, Any]], Any]

WEIGHTED: dict[str, Formula] = {}
"""Name of an operation → its value of (x, gates that broadcast against x, its other arguments)."""


def formula(*names: str) -> Callable[[Formula], Formula]:
    """Register the formula of operations by name."""

    def register(function: Formula) -> Formula:
        for name in names:
            WEIGHTED[name] = function
        return function

    return register


class Weighted(nn.Module):
    """An operation across units, which takes gates.

    Args:
        units: makes gates broadcast against what the operation reads.
        target: the operation.

    Example:
        >>> import torch
        >>> from bayesprune.structure.graph.rules.gates import UnitGates
        >>> units = UnitGates(torch.tensor([0, 1, 2]), dim=1, rows=0, inner=1, outer=1)
        >>> mean = Weighted(units, torch.ops.aten.mean.dim)
        >>> mean(torch.tensor([[2.0, 4.0, 9.0]]), [1], gates=torch.tensor([1.0, 1.0, 0.0, 1.0]))
        tensor([3.])
    """

    units: UnitGates

    def __init__(self, units: UnitGates, target: Any) -> None:
        super().__init__()
        self.units, self.target = units, target

    def forward(self, *args: Any, gates: Gates | None = None, **kwargs: Any) -> Any:
        """Compute.

        Args:
            args: as the operation takes them.
            gates: (units + 1,) for all rows alike, or (rows, units + 1); None means all open.
            kwargs: more of them.

        Returns:
            What the operation returns.
        """
        if self.units.are_open(gates):
            return self.target(*args, **kwargs)
        assert gates is not None
        schema = self.target._schema
        given = dict(zip((a.name for a in schema.arguments), args, strict=False)) | kwargs
        x = given.pop("self") if "self" in given else given.pop("input")
        z = self.units.spread(x.ndim, gates)
        value = WEIGHTED[schema.name.replace("::", ".")](x, z, given)
        dtype = given.get("dtype") or x.dtype  # that of the operation, whatever the type of the gates
        return tree_map_only(Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, value)


def weighted_node(
    graph: fx.GraphModule, node: fx.Node, name: str, units: UnitGates, gates: fx.Node
) -> fx.Node:
    """Put the gated form of an operation in its place.

    Args:
        graph: changed in place.
        node: the operation.
        name: what to call the new module.
        units: as in ``Weighted``.
        gates: the graph's input.

    Returns:
        The new node.
    """
    graph.add_submodule(name, Weighted(units, node.target))
    with graph.graph.inserting_before(node):
        new = graph.graph.call_module(name, node.args, {**node.kwargs, "gates": gates})
    node.replace_all_uses_with(new)
    graph.graph.erase_node(node)
    return new
