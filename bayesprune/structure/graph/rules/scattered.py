"""Sums and other reductions into positions that the inputs name, as messages along the edges of a graph."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bayesprune.structure.graph.rules.call import Call, is_fixed, rule, united, varying
from bayesprune.structure.graph.rules.labels import spread

AMONG = "it puts numbers at positions among its units"


@rule("aten.index_add", "aten.index_copy", "aten.index_reduce", "aten.scatter_add", "aten.scatter_reduce",
      "aten.scatter")  # fmt: skip
def scattered(call: Call) -> Any:
    """Positions run along one dimension; units along another pass, and meet what they are added to."""
    names = [name for name in ("self", "source", "src") if isinstance(call.known.get(name), Tensor)]
    dim = call.args["dim"] % len(call.shape)
    along = set().union(*(varying(call.known[name]) for name in names))
    if len(along) != 1 or dim in along or len(names) < 2 or not _is_whole(call, names, along):
        return call.frozen_everything(AMONG)
    units = along.pop()
    vector = united(call, next(call.known[n] for n in names if not is_fixed(call.known[n])), units)
    for name in (*names, "index") if call.args["index"].ndim == len(call.shape) else names:
        call.meet(name, units, vector)
    return spread(vector, units, call.shape)


def _is_whole(call: Call, names: list[str], units: set[int]) -> bool:
    """Whether all that is read is of one size along the units, and what is written into is nobody else's."""
    given = call.args["index"]
    sizes = {call.args[name].shape[dim] for name in names for dim in units}
    sizes |= {given.shape[dim] for dim in units} if given.ndim == len(call.shape) else set()
    written = call.node.target._schema.is_mutable and is_fixed(call.known["self"])  # type: ignore[union-attr]
    return len(sizes) == 1 and not (written and len(call.node.args[0].users) > 1)  # type: ignore[union-attr]


@rule("aten._sparse_mm")
def sparse_product(call: Call) -> Any:
    """A sparse matrix mixes the numbers of every unit, as the edges of a graph do."""
    dense = call.known["dense"]
    if not is_fixed(call.known["sparse"]) or varying(dense) - {1}:
        return call.frozen_everything("it mixes its units")
    return dense[:1].expand(call.shape)
