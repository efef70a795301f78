"""Units that no layer makes: what a network is handed, and the features that channels are flattened to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from bayesprune.structure.graph.rules.call import Findings
from bayesprune.structure.graph.rules.labels import along, spread
from bayesprune.structure.graph.rules.shape import MOVES
from bayesprune.structure.row import INPUT

FLATTENS = ("flatten", "view", "reshape", "_unsafe_view")
READS_LAST = ("linear", "matmul", "mm", "addmm", "lstm", "gru", "rnn_tanh", "rnn_relu", "layer_norm",
              "rms_norm")  # fmt: skip
REDUCES = ("mean", "sum", "amax", "amin", "max", "min", "var", "std", "softmax", "cumsum")
NORMS = ("batch_norm", "instance_norm", "group_norm")


class Born:
    """Where such units are born while a graph is run on labels.

    Inputs are units along the dimension that is read: the last one where a linear layer, a recurrence or a
    layer norm comes first, else dimension 1; behind a flatten that comes before any of them, each number of a
    row is a unit. Features are born where a flatten spreads every channel over several columns.

    Args:
        graph: of one mode.
        findings: of that graph.
        names: of the flattens that make features, in order; others are called as what they do.
    """

    def __init__(self, graph: fx.GraphModule, findings: Findings, names: Sequence[str]) -> None:
        self.findings, self.names = findings, names
        self.whole: dict[fx.Node, str] = {}  # a flatten of inputs → their place
        self.flattens = 0
        self.placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]

    def inputs(self, node: fx.Node, value: Tensor) -> Tensor:
        """Labels of an input of the network."""
        fixed = torch.zeros((), dtype=torch.long).expand(value.shape)
        if value.ndim < 2 or not value.is_floating_point():
            return fixed
        place = f"{INPUT}/{self.placeholders.index(node)}"
        reader = _first_reader(node)
        if reader is not None and _kind(reader) in FLATTENS:
            self.whole[reader] = place
            return fixed
        dim = value.ndim - 1 if reader is not None and _kind(reader) in READS_LAST else 1
        labels = self.findings.labels.bear(place, INPUT, fixed.new_zeros(value.shape[dim]))
        return spread(labels, dim, value.shape)

    def features(self, node: fx.Node, result: Any, labels: Any) -> Any:
        """Labels of what an operation returns: new ones where they are features, or flattened inputs.

        Args:
            node: the operation.
            result: its value.
            labels: as its rule gives them.
        """
        if _kind(node) not in FLATTENS or not isinstance(labels, Tensor):
            return labels
        size, owners = self.findings.sizes[node.all_input_nodes[0]], along(labels, -1)
        if result.ndim != 2 or len(size) < 2 or result.shape[0] != size[0] or owners is None:
            return labels
        if node in self.whole:
            place, name = self.whole[node], INPUT
        elif size[2:].numel() > 1:
            named = self.names[self.flattens : self.flattens + 1]
            self.flattens, name = self.flattens + 1, named[0] if named else _kind(node)
            place = f"features/{named[0] if named else node.name}"
        else:
            return labels
        return spread(self.findings.labels.bear(place, name, owners), 1, result.shape)


def _kind(node: fx.Node) -> str:
    return str(node.target).removeprefix("aten.").partition(".")[0]


def _first_reader(node: fx.Node) -> fx.Node | None:
    """The first operation behind a value that is more than one of each number by itself, or of a channel."""
    while True:
        users = [user for user in node.users if _kind(user) != "sym_size"]
        if not users:
            return None
        node = users[0]
        values = [n for n in node.all_input_nodes if _kind(n) != "sym_size"]
        if len(users) > 1 or len(values) > 1 or _kind(node) in (*MOVES, *READS_LAST, *REDUCES, *NORMS):
            return node
