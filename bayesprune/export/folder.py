"""Save a network of any form in a folder, and load it again."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bayesprune.errors import UnsupportedNetworkError
from bayesprune.export.architecture import (
    ARCHITECTURE,
    FORMAT,
    GRAPH_VERSION,
    read_architecture,
    write_architecture,
)
from bayesprune.export.form import form_of
from bayesprune.export.graphs import graph_from_data
from bayesprune.export.layers import is_sequence, sequence_from_data
from bayesprune.export.own_class import put_into_, sizes_of
from bayesprune.export.tensors import TENSORS, digest, read_tensors, tensor_bytes
from bayesprune.files import path_of, write_atomically
from bayesprune.rows import inputs_of
from bayesprune.structure.graph.plain import alike
from bayesprune.structure.trace import check_plain, evaluating

Inputs = Tensor | tuple[Tensor, ...]


def save(network: nn.Module, folder: str | Path, example: Inputs) -> None:
    """Write a network as `pruned.safetensors` and `architecture.json`.

    A sequence of plain layers is written as its layers. Any other network is written as the operations that
    it runs, in training and in evaluation, over tensors of its own names.

    Args:
        network: what `bayesprune.prune` returns, or any other that PyTorch can trace; left alone.
        folder: where the two files go; made as needed. A network already there is replaced.
        example: (rows, ...), a batch that the network accepts, or a tuple of them: shapes and types are
            noted, for whoever loads it.

    Raises:
        DataError: an example that is none.
        UnsupportedNetworkError: it cannot be traced, or runs an operation that cannot be written down.
        RunFolderError: ``folder`` is no path.
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(network, folder, torch.zeros(1, 4))
        ...     load(folder)
        Sequential(
          (0): Linear(in_features=4, out_features=3, bias=True)
          (1): ReLU()
        )
    """
    check_plain(network, "save")
    folder = path_of(folder, "save: the folder")
    inputs = tuple(x.cpu() for x in inputs_of(example))
    description: dict[str, Any]
    if is_sequence(network):
        description, tensors = form_of(network, inputs)
        content = tensor_bytes(tensors)
    else:
        description, content = _graph(network, inputs)
    write_atomically(folder / TENSORS, content)
    write_architecture(  # last: it names the tensors it belongs to, so a crash in between is noticed
        folder / ARCHITECTURE,
        {
            "format": FORMAT,
            "format_version": description.pop("format_version"),
            "input_shape": list(inputs[0].shape[1:]),
            "tensors": TENSORS,
            "tensors_sha256": digest(content),
            **description,
        },
    )


def load(folder: str | Path, into: nn.Module | None = None) -> nn.Module:
    """Rebuild a saved network: plain PyTorch, on the CPU, in eval mode; outputs equal bit for bit.

    Args:
        folder: where `save` wrote.
        into: an instance of the network's own class, as it was before pruning. Its parameters become the
            saved ones, whatever their sizes, and its layers' size attributes follow; by default the network
            comes back as plain layers, or as a module of the same parameter names that runs its operations.

    Returns:
        The network; ``into`` itself where that is given.

    Raises:
        RunFolderError: ``folder`` is no path.
        CheckpointError: a file is missing, truncated, of another version, or the two do not belong together;
            or the class has other parameters.
        UnsupportedNetworkError: the class has sizes written down in its code, so that it cannot hold these;
            it is left as it was.
    """
    folder = path_of(folder, "load: the folder")
    if into is not None:
        check_plain(into, "load(into=…)")
    description = read_architecture(folder)
    tensors = read_tensors(folder / TENSORS, description["tensors_sha256"], ARCHITECTURE)
    network: nn.Module
    if description["format_version"] == GRAPH_VERSION:
        network = graph_from_data(description, tensors, folder / ARCHITECTURE).eval()
    else:
        network = sequence_from_data(description, tensors, folder / ARCHITECTURE).eval()
    if into is not None:
        put_into_(into, network, description.get("sizes", sizes_of(network)), folder)
    return network if into is None else into


def _graph(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[dict[str, Any], bytes]:
    """A network's operations and tensors, after reading them back and comparing outputs."""
    network = copy.deepcopy(network).cpu()
    description, tensors = form_of(network, inputs)
    description["sizes"] = sizes_of(network)
    again = graph_from_data(description, tensors, Path(ARCHITECTURE))
    outputs = []
    for module in (network, again):
        with evaluating(module), torch.random.fork_rng():
            torch.manual_seed(0)
            leaves = tree_leaves(module(*(x.clone() for x in inputs)))
            outputs.append([leaf for leaf in leaves if isinstance(leaf, Tensor)])
    if not alike(*outputs):
        raise UnsupportedNetworkError(
            f"The {type(network).__name__} cannot be saved: traced, it computes something else than it does. "
            "Its forward must depend on nothing but its inputs, parameters and buffers; keep the network's "
            "state_dict beside its class."
        )
    return description, tensor_bytes(tensors)
