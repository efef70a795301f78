"""What a network runs, in training and in evaluation, as plain data and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import fx, nn
from torch.utils._pytree import TreeSpec

from bayesprune.structure.plain.nodes import as_data, from_data
from bayesprune.structure.plain.trees import tree_data, tree_from_data

MODES = {"training": True, "evaluation": False}


def program_data(graphs: Mapping[bool, fx.Graph], outputs: Mapping[bool, TreeSpec]) -> dict[str, Any]:
    """What a network runs, as plain data.

    Args:
        graphs: training or not → graph.
        outputs: training or not → how its results hang together.

    Returns:
        Mode → nodes of its graph, and how its outputs hang together.

    Raises:
        ValueError: an operation, argument, name or output that cannot be written down.
    """
    return {
        mode: {"nodes": as_data(graphs[training]), "outputs": tree_data(outputs[training])}
        for mode, training in MODES.items()
    }


def program_from_data(
    data: Any, tensors: Collection[str]
) -> tuple[dict[bool, fx.Graph], dict[bool, TreeSpec]]:
    """Graphs and structures of outputs from plain data.

    Args:
        data: as `program_data` gives it.
        tensors: names of the parameters and buffers that there are.

    Returns:
        Training or not → graph; training or not → how its outputs hang together.

    Raises:
        ValueError: the data are not what `program_data` gives; mode and node are named.
    """
    graphs, outputs = {}, {}
    for mode, training in MODES.items():
        entry = data.get(mode) if isinstance(data, dict) else None
        try:
            if not isinstance(entry, dict) or set(entry) != {"nodes", "outputs"}:
                raise ValueError("there are no nodes and outputs")
            graphs[training] = from_data(entry["nodes"], tensors)
            results = next(node for node in graphs[training].nodes if node.op == "output").args[0]
            outputs[training] = tree_from_data(entry["outputs"], len(results))  # type: ignore[arg-type]
        except (ValueError, RecursionError) as problem:
            raise ValueError(f"graph of {mode}: {problem}") from None
    return graphs, outputs


def tensor_names(network: nn.Module) -> set[str]:
    """Names of all parameters and buffers: of modules and tensors that have two names, both."""
    parameters = network.named_parameters(remove_duplicate=False)
    buffers = network.named_buffers(remove_duplicate=False)
    return {name for name, _ in (*parameters, *buffers)}
