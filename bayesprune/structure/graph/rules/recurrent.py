"""Recurrences: their hidden units, and what they read."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, fx

from bayesprune.structure.graph.rules.call import Call, Raw, rule, united
from bayesprune.structure.graph.rules.gated_reduction import formula
from bayesprune.structure.graph.rules.labels import READS_FIXED, spread

PARTS = {"aten.lstm": 4, "aten.gru": 3, "aten.rnn_tanh": 1, "aten.rnn_relu": 1}
"""Blocks of rows in a recurrence's weights, each with one row for every hidden unit."""


@rule(*PARTS, parameters=("params",))
def recurrence(call: Call) -> Any:
    """A hidden unit is the same index in every layer and direction, for they all are of one size.

    It is read by the columns of its own layer's hidden weights, by those of the next layer's inputs, and by
    whoever reads the outputs. The first two are inside, and so are their gates: see ``_gated``.
    """
    x, weights = call.known.get("input"), call.known.get("params") or []
    if not isinstance(x, Tensor) or not weights or not all(isinstance(w, Raw) for w in weights):
        return call.frozen_everything("recurrences of this form have no rule yet")
    directions, each = 1 + bool(call.args["bidirectional"]), 4 if call.args["has_biases"] else 2
    if len(weights) != each * directions * call.args["num_layers"]:  # projections
        return call.frozen_everything("recurrences with projections have no rule yet")
    if not _own_start(call):
        return call.frozen_everything("its first hidden state comes from elsewhere")
    columns = united(call, x, -1)
    units = weights[1].along(call.labels, 1)
    for i in range(0, len(weights), each):
        read, *others = weights[i : i + each]
        for weight in (read, *others):  # (blocks × units, ...)
            call.join(weight.along(call.labels, 0).view(-1, len(units)), units)
        call.join(others[0].along(call.labels, 1), units)
        if i < each * directions:
            call.join(columns, read.along(call.labels, 1), READS_FIXED)
        else:
            call.join(read.along(call.labels, 1).view(-1, len(units)), units)
    call.read("input", -1, columns, weights[0])
    call.weighs("input", -1, units)
    _resize_start(call, units)
    outputs, *states = call.result
    return [
        spread(units.repeat(directions), -1, outputs.shape),
        *(spread(units, -1, s.shape) for s in states),
    ]


def _starts(call: Call) -> list[fx.Node]:
    given = call.node.args[1]
    return [n for n in (given if isinstance(given, list | tuple) else [given]) if isinstance(n, fx.Node)]


def _own_start(call: Call) -> bool:
    """Whether the first hidden state is zeros made for this recurrence."""
    return all(
        str(node.target).startswith("aten.zeros") and set(node.users) == {call.node} for node in _starts(call)
    )


def _resize_start(call: Call, units: Tensor) -> None:
    for node in _starts(call):
        call.findings.expanded[node] = {2: units}


def _gated(op: Any, x: Tensor, z: Tensor, given: dict[str, Any]) -> Any:
    """Hidden units times their gates, h_t = f(x_t, W (z h_{t−1})): the same as gates on the columns of W.

    Rows with gates of their own are run one by one.

    Args:
        op: the recurrence.
        x: (rows, steps, inputs), or (steps, rows, inputs).
        z: (rows or 1, 1, units), or (1, rows or 1, units).
        given: the operation's other arguments, in order.
    """
    start, weights, *settings = given.values()
    each, directions = 4 if given["has_biases"] else 2, 1 + bool(given["bidirectional"])
    dim = 0 if given["batch_first"] else 1
    rows, pieces = z.shape[dim], []
    for row in range(rows):
        alone = slice(None) if rows == 1 else slice(row, row + 1)
        first = [s[:, alone] for s in start] if isinstance(start, list | tuple) else start[:, alone]
        columns = _with_gates(weights, z.select(dim, row).reshape(-1), each, directions)
        pieces.append(op(x[alone] if dim == 0 else x[:, alone], first, columns, *settings))
    if rows == 1:
        return pieces[0]
    outputs, *states = zip(*pieces, strict=True)
    return (torch.cat(outputs, dim), *(torch.cat(state, 1) for state in states))


def _with_gates(weights: list[Tensor], z: Tensor, each: int, directions: int) -> list[Tensor]:
    """The weights with gated columns wherever hidden units are read inside."""
    gated = list(weights)
    for i in range(0, len(weights), each):
        gated[i + 1] = weights[i + 1] * z
        if i >= each * directions:
            gated[i] = weights[i] * z.repeat(directions)
    return gated


for _kind in PARTS:
    formula(_kind)(functools.partial(_gated, getattr(torch.ops.aten, _kind.removeprefix("aten.")).input))
