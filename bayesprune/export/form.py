"""What a network is, written down: the one form that `save` writes and that hashes cover."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bayesprune.export.graphs import graph_data, graph_tensors
from bayesprune.export.layers import is_sequence, sequence_data, sequence_tensors
from bayesprune.rows.call import Call
from bayesprune.structure.copying import copy_of
from bayesprune.structure.graph import as_plain_graph


def form_of(network: nn.Module, inputs: Call | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A network as what it computes and what it computes with.

    A sequence of plain layers is its layers' classes and arguments; any other network the operations that it
    runs, in training and in evaluation. Networks that differ in what they compute differ in one or the other.

    Args:
        network: any that PyTorch can trace; left alone.
        inputs: (rows, ...), a batch that it accepts; None for what needs none.

    Returns:
        Entries of the architecture's file; and name → tensor, on the CPU: parameters and buffers, constants
        of its graphs among them.

    Raises:
        UnsupportedNetworkError: it cannot be traced, or runs an operation that cannot be written down.
    """
    if is_sequence(network):
        return sequence_data(network), {name: t.cpu() for name, t in sequence_tensors(network).items()}
    tensors = [*network.parameters(), *network.buffers()]
    if any(tensor.device != torch.device("cpu") for tensor in tensors):
        network = copy_of(network).cpu()
    plain = as_plain_graph(network, None if inputs is None else inputs.detach().to("cpu"))
    return graph_data(plain, () if inputs is None else inputs.tensors), graph_tensors(plain)


def computed(description: dict[str, Any]) -> dict[str, Any]:
    """What of a description bears on outputs: which parameters train, and on what example it was noted down,
    do not.

    Args:
        description: that ``form_of`` gave.
    """
    found = {key: value for key, value in description.items() if key not in ("frozen", "inputs")}
    if "values" in found:
        found["values"] = [{k: v for k, v in entry.items() if k != "trains"} for entry in found["values"]]
    return found
