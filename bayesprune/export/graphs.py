"""A network of any form as data: its tree of names, its tensors, and the operations that it runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bayesprune.errors import CheckpointError, UnsupportedNetworkError
from bayesprune.export.architecture import GRAPH_VERSION, input_data
from bayesprune.structure.graph.capture.capture import Captured, Inputs, find_tensor
from bayesprune.structure.graph.shipped import plain_graph_of
from bayesprune.structure.layer_form import built, described
from bayesprune.structure.plain import (
    LAYERS,
    Part,
    PlainGraph,
    place_of,
    program_data,
    program_from_data,
    tensor_names,
)
from bayesprune.structure.plain.program import MODES

KINDS = ("parameter", "buffer", "constant")


def graph_data(network: PlainGraph, inputs: Inputs) -> dict[str, Any]:
    """A network as plain data.

    Args:
        network: that runs as its graphs.
        inputs: (rows, ...) each, the tensors that it takes.

    Returns:
        Entries of the architecture's file.

    Raises:
        UnsupportedNetworkError: it runs an operation that cannot be written down; it is named.
    """
    try:
        program = program_data(network._bayesprune_program)
    except ValueError as problem:
        remedy = "Write it with PyTorch's own operations"
        if "sparse" in str(problem):  # a file could name indices that are none
            remedy = "Write it as a sum over edges, torch.zeros_like(h).index_add(0, target, h[source])"
        raise UnsupportedNetworkError(
            f"The {network._bayesprune_program.kind} cannot be saved: {problem}. {remedy}, or keep the "
            "network's state_dict beside its class."
        ) from None
    return {
        "format_version": GRAPH_VERSION,
        "network": network._bayesprune_program.kind,
        "inputs": input_data(inputs, network.call_form.names),
        "modules": _modules(network),
        "values": _values(network),
        **program,
    }


def check_savable(captured: Captured) -> None:
    """Make sure that a network can be saved, before it is trained.

    Args:
        captured: the network.

    Raises:
        UnsupportedNetworkError: it runs an operation that cannot be written down; it is named.
    """
    graph_data(plain_graph_of(captured, captured.graphs), captured.example)


def graph_tensors(network: PlainGraph) -> dict[str, Tensor]:
    """Name → tensor, each tensor once: parameters, buffers, and constants of the graphs."""
    return dict(network.named_parameters()) | dict(network.named_buffers())


def graph_from_data(description: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> PlainGraph:
    """A network from plain data and tensors.

    Args:
        description: content of the architecture's file.
        tensors: name → tensor.
        path: of the architecture's file, for messages.

    Returns:
        The network.

    Raises:
        CheckpointError: the data are not what `graph_data` gives, or do not fit the tensors.
    """
    try:
        tree = _tree(description)
        _fill_(tree, description["values"], tensors)
        data = {mode: description[mode] for mode in MODES} | {"call": description.get("call")}
        program = program_from_data(data, description["network"], tensor_names(tree), place_of(tree))
        return PlainGraph(tree, program.graphs, program.outputs, program.form)
    except Exception as problem:  # whatever PyTorch raises on what is no network
        kind = "" if isinstance(problem, ValueError) else f"{type(problem).__name__}: "
        raise CheckpointError(
            f"{path}: cannot rebuild the network: {kind}{problem}. The file was changed, or written by a "
            "newer bayesprune; export the network again."
        ) from None


def _modules(network: PlainGraph) -> list[dict[str, Any]]:
    """The tree of names below the root, parents first."""
    entries: list[dict[str, Any]] = []
    names: dict[int, str] = {id(network): ""}
    for name, module in network.named_modules(remove_duplicate=False):
        if id(module) not in names:
            names[id(module)] = name
            if isinstance(module, Part):
                entries.append({"name": name, "part": module._get_name()})
            else:
                kind = type(module).__name__
                entries.append({"name": name, "class": kind, "arguments": described(module)})
        elif names[id(module)] != name and names[id(_parent(network, name))] == name.rpartition(".")[0]:
            entries.append({"name": name, "same_as": names[id(module)]})
    return entries


def _parent(network: nn.Module, name: str) -> nn.Module:
    return network.get_submodule(name.rpartition(".")[0])


def _values(network: PlainGraph) -> list[dict[str, Any]]:
    """Parameters, buffers, and constants, which are no part of the ``state_dict``."""
    entries: list[dict[str, Any]] = []
    names: dict[int, str] = {}
    for owner, module in network.named_modules():
        for leaf, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None:
                continue
            name = f"{owner}.{leaf}" if owner else leaf
            passing = leaf in module._non_persistent_buffers_set
            kind = "parameter" if leaf in module._parameters else "constant" if passing else "buffer"
            entry: dict[str, Any] = {"name": name, "kind": kind}
            if kind == "parameter" and not tensor.requires_grad:
                entry["trains"] = False
            if names.setdefault(id(tensor), name) != name:
                entry["same_as"] = names[id(tensor)]
            entries.append(entry)
    return entries


def _tree(description: Mapping[str, Any]) -> Part:
    """The tree of names; its layers have no numbers yet."""
    tree = Part(str(description["network"]))
    for entry in description["modules"]:
        if "same_as" in entry:
            module = tree.get_submodule(entry["same_as"])
        elif "part" in entry:
            module = Part(str(entry["part"]))
        else:
            module = built(LAYERS[entry["class"]], entry["arguments"])
        _parent(tree, entry["name"]).add_module(entry["name"].rpartition(".")[2], module)
    return tree


def _fill_(tree: Part, values: list[Any], tensors: Mapping[str, Tensor]) -> None:
    """Put tensors where the entries say; all of them, and nowhere else."""
    left = dict(tensors)
    for entry in values:
        name, kind = entry["name"], KINDS.index(entry["kind"])
        owner, leaf = _parent(tree, name), name.rpartition(".")[2]
        tensor = find_tensor(tree, entry["same_as"]) if "same_as" in entry else left.pop(name, None)
        if tensor is None:
            raise ValueError(f"there is no tensor {entry.get('same_as', name)!r}")
        said = owner._parameters.get(leaf, owner._buffers.get(leaf))
        if said is not None and said.shape != tensor.shape:
            raise ValueError(f"{name!r} has shape {tuple(tensor.shape)}, its layer says {tuple(said.shape)}")
        if kind:
            owner.register_buffer(leaf, tensor, persistent=KINDS[kind] == "buffer")
        elif isinstance(tensor, nn.Parameter):
            owner.register_parameter(leaf, tensor)
        else:
            owner.register_parameter(leaf, nn.Parameter(tensor, requires_grad=entry.get("trains", True)))
    absent = [name for name in tensor_names(tree) if _at(tree, name).device == torch.device("meta")]
    if absent or left:
        what = "missing" if absent else "in no layer"
        raise ValueError(f"tensors {sorted(absent) or sorted(left)} are {what}")


def _at(tree: Part, name: str) -> Tensor:
    tensor = find_tensor(tree, name)
    assert tensor is not None, name
    return tensor
