"""A sequence of plain layers as data: class and arguments of each, from a fixed list of classes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bayesprune.errors import CheckpointError
from bayesprune.export.architecture import LAYERS_VERSION
from bayesprune.structure.altered import alter_outputs, is_plain
from bayesprune.structure.layer_form import built, described
from bayesprune.structure.layers import ACROSS, NORMS, POINTWISE, PRODUCERS
from bayesprune.structure.select import selected, selection

CLASSES: dict[str, type[nn.Module]] = {
    kind.__name__: kind for kind in (*PRODUCERS, *NORMS, *POINTWISE, *ACROSS, nn.Flatten, nn.Unflatten)
}
"""The only classes that are written, and the only ones that a file can make `load` build."""

SELECT = "Select"
"""What a file calls a selection of columns, which has no class of its own."""


def is_sequence(network: nn.Module) -> bool:
    """Whether a network is nothing but plain layers, one after the other, that share nothing.

    What somebody has altered is none: a layer with a mask, a computed weight or a forward hook, for example.
    """
    if not isinstance(network, nn.Sequential) or type(network).forward is not nn.Sequential.forward:
        return False
    layers = list(network._modules.values())
    others = [layer for layer in layers if selected(layer) is None]
    known = all(CLASSES.get(type(layer).__name__) is type(layer) for layer in others)
    plain = known and not alter_outputs(network) and all(map(is_plain, others))
    tensors = [*network.parameters(), *network.buffers()]
    twice = [
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    ]
    return plain and len(layers) == len(set(map(id, layers))) and len(tensors) == len(twice)


def sequence_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Name → tensor: parameters and buffers, whatever hooks would make of the ``state_dict``.

    Args:
        network: for which `is_sequence` holds.
    """
    return dict(network.named_parameters()) | dict(network.named_buffers())


def sequence_data(network: nn.Module) -> dict[str, Any]:
    """A sequence of layers as plain data.

    Args:
        network: for which `is_sequence` holds.

    Returns:
        Entries of the architecture's file.
    """
    layers = [{"name": name, **_entry(layer)} for name, layer in network.named_children()]
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    data = {"format_version": LAYERS_VERSION, "layers": layers}
    return {**data, "frozen": frozen} if frozen else data


def _entry(layer: nn.Module) -> dict[str, Any]:
    """Class and arguments."""
    select = selected(layer)
    if select is not None:
        return {"class": SELECT, "arguments": {"width": select[0]}}
    return {"class": type(layer).__name__, "arguments": described(layer)}


def sequence_from_data(
    description: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path
) -> nn.Sequential:
    """A sequence of layers from plain data and tensors.

    Args:
        description: content of the architecture's file.
        tensors: name → tensor.
        path: of the architecture's file, for messages.

    Returns:
        The network.

    Raises:
        CheckpointError: the data are not what `sequence_data` gives, or do not fit the tensors.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for entry in description["layers"]:
        layer = _layer(entry, path, layers)
        if entry["class"] == SELECT and f"{entry['name']}.index" in tensors:
            layer.index = tensors[f"{entry['name']}.index"]  # fewer positions than the width it selects from
        layers[entry["name"]] = layer
    _spare_inputs_(layers.values())
    network = nn.Sequential(layers)
    try:
        network.load_state_dict(tensors, assign=True)
        for name in description.get("frozen", []):
            network.get_parameter(name).requires_grad_(False)
    except Exception as problem:  # whatever PyTorch raises on tensors of another network
        raise CheckpointError(
            f"{path.parent / 'pruned.safetensors'}: does not fit {path.name}: {problem}"
        ) from None
    return network


def _spare_inputs_(layers: Iterable[nn.Module]) -> None:
    """Layers that would write into the network's input, which is their caller's, compute the same apart."""
    for layer in layers:
        if hasattr(layer, "inplace"):
            layer.inplace = False  # type: ignore[assignment]
        elif not isinstance(layer, nn.Identity | nn.Flatten | nn.Unflatten | nn.Dropout) and not selected(
            layer
        ):
            return  # its result is its own


def _layer(entry: Any, path: Path, taken: Collection[str]) -> nn.Module:
    try:
        name, arguments = entry["name"], entry["arguments"]
        kind = None if entry["class"] == SELECT else CLASSES[entry["class"]]
        if not isinstance(name, str) or not name or "." in name or name in taken:
            raise ValueError("its name is none, taken, or has a dot")
        values = [part for v in arguments.values() for part in (v if isinstance(v, list) else [v])]
        if any(isinstance(part, dict | list) for part in values):
            raise ValueError("an argument that is neither a number, a word nor a list of them")
        return _whole(**arguments) if kind is None else built(kind, arguments)
    except Exception as problem:  # whatever a class of torch.nn raises on arguments that it does not take
        raise CheckpointError(
            f"{path}: cannot rebuild layer {entry!r} ({type(problem).__name__}: {problem}). "
            "The file was changed, or written by a newer bayesprune; export the network again."
        ) from None


def _whole(width: int) -> nn.Module:
    """A selection of all columns, until its index is known: no memory for a width that a file may say."""
    return selection(int(width), torch.arange(width, device="meta"))
