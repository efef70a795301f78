"""Surgery on parameters, gradients and optimiser state, which can be undone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bayesprune.structure.graph.analysis.structure import Structure
from bayesprune.structure.graph.capture.capture import find_tensor
from bayesprune.structure.groups import WHOLE, Slot


def kept_places(structure: Structure, before: Tensor, after: Tensor) -> list[tuple[str, int, Tensor]]:
    """Parameter, dimension, and which of its present indices stay; only those that lose some.

    Of a dead section's tensors nothing stays along the first dimension.
    """
    emptied, gone = tensors_gone(structure, before), tensors_gone(structure, after)
    before, after = (torch.cat([m, torch.ones(1, dtype=torch.bool)]) for m in (before, after))
    found, seen = [], set()
    for name in sorted(gone - emptied):
        tensor = find_tensor(structure.captured.network, name)
        if tensor is not None and tensor.ndim:
            found.append((name, 0, torch.zeros(len(tensor), dtype=torch.bool)))
    for (name, dim), (start, size) in structure.findings[True].labels.starts.items():
        tensor = find_tensor(structure.captured.network, name)
        if tensor is None or name in gone:
            continue  # zeros that a padding adds
        units = structure.unit_of[start : start + size]
        stays = after[units][before[units]]
        if not bool(stays.all()) and (id(tensor), dim) not in seen:
            seen.add((id(tensor), dim))
            found.append((name, dim, stays))
    return found


def tensors_gone(structure: Structure, alive: Tensor) -> set[str]:
    """Names of the tensors that went with their section.

    Args:
        structure: of the whole network.
        alive: (units,), bool.
    """
    first = structure.first_section
    return {n for s in structure.sections if not bool(alive[first + s.unit]) for n in s.tensors}


def whole_shapes(structure: Structure) -> dict[str, torch.Size]:
    """Name of a parameter → its shape in the dense network.

    Args:
        structure: of the network, which may have been cut.
    """
    shapes = {name: list(p.shape) for name, p in structure.captured.network.named_parameters()}
    for (name, dim), (_, size) in structure.findings[True].labels.starts.items():
        if name in shapes:
            shapes[name][dim] = size
    return {name: torch.Size(shape) for name, shape in shapes.items()}


def living_slots(structure: Structure, alive: Tensor) -> tuple[Slot, ...]:
    """Where the units that are left sit.

    Args:
        structure: of the whole network.
        alive: (units,), bool.

    Returns:
        The slots of the tensors that are left, each with the ids of its units that are left.
    """
    if bool(alive.all()):
        return structure.slots
    known, gone = torch.cat([alive, torch.ones(1, dtype=torch.bool)]), tensors_gone(structure, alive)
    starts, left = structure.findings[True].labels.starts, []
    for slot in structure.slots:
        if slot.tensor in gone:
            continue
        if slot.dim != WHOLE:
            start, size = starts[slot.tensor, slot.dim]
            slot = replace(slot, unit_ids=slot.unit_ids[known[structure.unit_of[start : start + size]]])
        left.append(slot)
    return tuple(left)


class Moments(Protocol):
    """Whatever keeps something of a parameter: an optimiser of PyTorch's, or several."""

    @property
    def state(self) -> Any:
        """Parameter → name → what is kept."""


def cut_tensor_(tensor: Tensor, dim: int, stays: Tensor, optimiser: Moments | None = None) -> None:
    """Cut a parameter, its gradient and its optimiser state; the object keeps its identity.

    What an optimiser keeps for every number, or summed over other dimensions (Adafactor's second moments by
    rows and columns), is cut with them; what it keeps for the whole parameter stays.
    """
    index, size = stays.nonzero().squeeze(1).to(tensor.device), tensor.shape[dim]
    state = optimiser.state.get(tensor, {}) if optimiser is not None else {}
    for key, value in state.items():
        if torch.is_tensor(value) and value.ndim == tensor.ndim and value.shape[dim] == size:
            state[key] = value.index_select(dim, index.to(value.device))
    gradient, tensor.grad = tensor.grad, None
    values = tensor.data.index_select(dim, index)
    # A graph that somebody still holds, as a loop holds its last loss, keeps the node alive that adds up this
    # parameter's gradient, and the next graph would meet it with the old shape. PyTorch lets go of the node
    # where data of another type are put in place.
    tensor.data = torch.empty(0, dtype=_other(tensor.dtype), device=tensor.device)
    tensor.data = values
    if gradient is not None:
        tensor.grad = gradient.index_select(dim, index)


def _other(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype != torch.float32 else torch.float64


def shorter_lengths(
    structure: Structure, places: list[tuple[str, int, Tensor]]
) -> list[tuple[Tensor, Tensor]]:
    """Lengths of filters that are about to lose some of their numbers: w = g v / ‖v‖ stays what it is.

    Args:
        structure: of the network.
        places: as ``kept_places`` gives them.

    Returns:
        Each g that changes, and g ‖v′‖ / ‖v‖, with v′ what is left of v.
    """
    network, found = structure.captured.network, []
    for name, length, dim in sorted(structure.findings[True].lengths | structure.findings[False].lengths):
        v, g = find_tensor(network, name), find_tensor(network, length)
        assert v is not None and g is not None
        left = v.detach()
        for other, along, stays in places:
            if along != dim and find_tensor(network, other) is v:
                left = left.index_select(along, stays.nonzero().squeeze(1).to(v.device))
        if left.shape != v.shape:
            ratio = torch.norm_except_dim(left, 2, dim) / torch.norm_except_dim(v.detach(), 2, dim)
            found.append((g, g.detach() * ratio))
    return found


def follow_counts_(structure: Structure, alive: Tensor) -> None:
    """Layers' numbers of groups, and sizes of recurrences, agree with the parameters that are left.

    Args:
        structure: of the network, whose layers are changed in place.
        alive: (units,), bool.
    """
    network = structure.captured.network
    known = torch.cat([alive, torch.ones(1, dtype=torch.bool)])
    for node, firsts in structure.findings[True].group_counts.items():
        parameters = [n for n in node.all_input_nodes if n.op == "get_attr"]
        if not parameters:
            continue
        layer = network.get_submodule(str(parameters[0].target).rpartition(".")[0])
        count = int(known[structure.unit_of[firsts]].sum())
        if isinstance(layer, nn.GroupNorm):
            layer.num_groups = count
        elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            layer.groups, layer.in_channels = count, layer.weight.shape[1] * count
        elif isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            layer.groups, layer.out_channels = count, layer.weight.shape[1] * count
    for layer in network.modules():
        if isinstance(layer, nn.GroupNorm) and layer.weight is not None:
            layer.num_channels = len(layer.weight)
        elif isinstance(layer, nn.RNNBase):
            weights = dict(layer.named_parameters(recurse=False))
            if {"weight_hh_l0", "weight_ih_l0"} <= set(weights):
                shown = weights["weight_hh_l0"].shape[1]
                layer.hidden_size = weights["weight_hr_l0"].shape[1] if layer.proj_size else shown
                layer.proj_size = shown if layer.proj_size else 0
                layer.input_size = weights["weight_ih_l0"].shape[1]
        elif isinstance(layer, nn.RNNCellBase):
            layer.hidden_size, layer.input_size = layer.weight_hh.shape[1], layer.weight_ih.shape[1]


class Backup:
    """A tensor as it was, to be put back if a cut was wrong."""

    def __init__(self, tensor: Tensor, optimiser: Moments | None) -> None:
        self.tensor, self.data, self.grad = tensor, tensor.data, tensor.grad
        self.state = dict(optimiser.state.get(tensor, {})) if optimiser is not None else {}

    def restore_(self, optimiser: Moments | None) -> None:
        """Put it back."""
        self.tensor.grad = None
        self.tensor.data = self.data
        self.tensor.grad = self.grad
        if optimiser is not None and self.state:
            optimiser.state[self.tensor].update(self.state)


def strip_(network: nn.Module, gone: set[str]) -> None:
    """Forget the tensors that went with their section, and the modules that held nothing else.

    Args:
        network: changed in place.
        gone: names of tensors.
    """
    for name in gone:
        module, _, last = name.rpartition(".")
        for store in (network.get_submodule(module)._parameters, network.get_submodule(module)._buffers):
            store.pop(last, None)
    for name in {name.rpartition(".")[0] for name in gone}:
        while name and not _holds_tensors(network, name):
            name, _, last = name.rpartition(".")
            if _holds_tensors(network, name) is not None:
                network.get_submodule(name)._modules.pop(last, None)


def _holds_tensors(network: nn.Module, name: str) -> bool | None:
    """None where there is no such module any more."""
    try:
        return bool(network.get_submodule(name).state_dict())
    except AttributeError:
        return None
