"""Linear maps that each row has its own weight for: hidden units are those of all experts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bayesprune.structure.graph.rules.call import Call, Raw, rule
from bayesprune.structure.graph.rules.labels import spread
from bayesprune.structure.graph.rules.linear import COMPUTED, read_columns
from bayesprune.structure.plain.routed import NAME


@rule(NAME, parameters=("weight", "bias"))
def routed_linear(call: Call) -> Any:
    """y_n = W_e x_n + b_e: the same rows and columns of all weights are one unit."""
    weight, bias = call.known["weight"], call.known.get("bias")
    if not isinstance(weight, Raw):
        return call.refill(COMPUTED)
    for parameter in (weight, bias):
        if isinstance(parameter, Raw):
            call.freeze_along(parameter, {0}, "it is one weight for each of them")
    one = replace(weight, shape=weight.shape[1:], dims=weight.dims[1:])
    read_columns(call, "input", -1, one, -1)
    rows = one.along(call.labels, 0)
    call.meet("bias", 1, rows)
    return spread(rows, -1, call.shape)
