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


@rule(*PARTS, parameters=("params", "hx"))
def recurrence(call: Call) -> Any:
    """A hidden unit is the same index in every layer and direction, for they all are of one size.

    It is read by the columns of its own layer's hidden weights, by those of the next layer's inputs, and by
    whoever reads the outputs. The first two are inside, and so are their gates: see ``_gated``.
    """
    x, weights = call.known.get("input"), call.known.get("params") or []
    if not isinstance(x, Tensor) or not weights or not all(isinstance(w, Raw) for w in weights):
        return call.frozen_everything("recurrences of this form have no rule yet")
    directions = 1 + bool(call.args["bidirectional"])
    each = len(weights) // (directions * call.args["num_layers"])
    projected = each in (3, 5)
    columns = united(call, x, -1)
    shown = weights[1].along(call.labels, 1)
    units = weights[each - 1].along(call.labels, 1) if projected else shown
    for i in range(0, len(weights), each):
        read, *others = weights[i : i + each]
        if projected:  # (shown, units)
            last = others.pop()
            call.join(last.along(call.labels, 0), shown)
            call.join(last.along(call.labels, 1), units)
        for weight in (read, *others):  # (blocks × units, ...)
            call.join(weight.along(call.labels, 0).view(-1, len(units)), units)
        call.join(others[0].along(call.labels, 1), shown)
        if i < each * directions:
            call.join(columns, read.along(call.labels, 1), READS_FIXED)
        else:
            call.join(read.along(call.labels, 1).view(-1, len(shown)), shown)
    call.read("input", -1, columns, weights[0])
    call.weighs("input", -1, torch.cat([shown, units]) if projected else units)
    if projected:
        call.findings.inside.append(units)
    _start(call, [shown, units])
    outputs, *states = call.result
    return [
        spread(shown.repeat(directions), -1, outputs.shape),
        *(spread(part, -1, s.shape) for part, s in zip([shown, units], states, strict=False)),
    ]


def _start(call: Call, units: list[Tensor]) -> None:
    """The first state goes with the units: zeros made for them, learnt, computed, or given."""
    if _own_start(call):
        for node, part in zip(_starts(call), units, strict=False):
            call.findings.expanded[node] = {2: part}
    elif isinstance(call.known["hx"], list):
        for at, _ in enumerate(call.known["hx"]):
            call.meet("hx", 2, units[at], at)
    else:
        call.meet("hx", 2, units[0])


CELLS = {"aten.lstm_cell": 4, "aten.gru_cell": 3, "aten.rnn_tanh_cell": 1, "aten.rnn_relu_cell": 1}
"""Blocks of rows in a cell's weights."""


@rule(*CELLS, parameters=("w_ih", "w_hh", "b_ih", "b_hh", "hx"))
def cell(call: Call) -> Any:
    """One step: its hidden units are read by the columns of its hidden weights, at the next step."""
    weights = [call.known.get(name) for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
    w_ih, w_hh = weights[:2]
    if not all(w is None or isinstance(w, Raw) for w in weights) or w_ih is None or w_hh is None:
        return call.refill("its weights are computed, and such weights have no rule yet")
    units = w_hh.along(call.labels, 1)
    for weight in (w for w in weights if w is not None):  # (blocks × units, ...)
        call.join(weight.along(call.labels, 0).view(-1, len(units)), units)
    columns = united(call, call.known["input"], -1)
    call.join(columns, w_ih.along(call.labels, 1), READS_FIXED)
    call.read("input", -1, columns, w_ih)
    lists = isinstance(call.known["hx"], list)
    for at in range(len(call.known["hx"])) if lists else [None]:
        call.meet("hx", -1, units, at)
    call.weighs("input", -1, units)
    if isinstance(call.result, Tensor):
        return spread(units, -1, call.result.shape)
    return [spread(units, -1, part.shape) for part in call.result]


def _starts(call: Call) -> list[fx.Node]:
    given = call.node.args[1]
    return [n for n in (given if isinstance(given, list | tuple) else [given]) if isinstance(n, fx.Node)]


def _own_start(call: Call) -> bool:
    """Whether the first hidden state is zeros made for this recurrence."""
    return all(
        str(node.target).startswith("aten.zeros") and set(node.users) == {call.node} for node in _starts(call)
    )


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
    directions = 1 + bool(given["bidirectional"])
    each = len(weights) // (directions * given["num_layers"])
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
    """The weights with gated columns wherever hidden units are read inside.

    Args:
        weights: of all layers and directions.
        z: (units,), or (projections + units,).
        each: weights of one layer and direction.
        directions: one or two.
    """
    gated = list(weights)
    shown, units = z.split([weights[1].shape[1], len(z) - weights[1].shape[1]])
    for i in range(0, len(weights), each):
        gated[i + 1] = weights[i + 1] * shown
        if i >= each * directions:
            gated[i] = weights[i] * shown.repeat(directions)
        if len(units):
            gated[i + each - 1] = weights[i + each - 1] * units
    return gated


def _gated_cell(op: Any, x: Tensor, z: Tensor, given: dict[str, Any]) -> Any:
    """One step whose hidden weights read the state times its gates: h' = f(x, W (z h)).

    Args:
        op: the cell.
        x: (rows, inputs).
        z: (rows or 1, units).
        given: the operation's other arguments, in order.
    """
    state, *weights = given.values()
    state = [state[0] * z, *state[1:]] if isinstance(state, list | tuple) else state * z
    return op(x, state, *weights)


for _kind in PARTS:
    formula(_kind)(functools.partial(_gated, getattr(torch.ops.aten, _kind.removeprefix("aten.")).input))
for _kind in CELLS:
    formula(_kind)(
        functools.partial(_gated_cell, getattr(torch.ops.aten, _kind.removeprefix("aten.")).default)
    )
