"""Save a network of any form in a folder, and load it again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, overload

import torch
from safetensors.torch import load as tensors_from_bytes
from torch import Tensor, nn

from bayesprune.errors import CheckpointError
from bayesprune.export.architecture import (
    ARCHITECTURE,
    FORMAT,
    GRAPH_VERSION,
    architecture_bytes,
    digest_of,
    read_architecture,
    read_description,
)
from bayesprune.export.graphs import graph_data, graph_from_data, graph_tensors
from bayesprune.export.inside import inside_data, inside_from_data
from bayesprune.export.layers import is_sequence, sequence_data, sequence_from_data, sequence_tensors
from bayesprune.export.own_class import put_into_, sizes_of
from bayesprune.export.read_back import check_same_outputs, check_same_tensors, held, outputs_of
from bayesprune.export.tensors import TENSORS, architecture_of, digest, read_tensors, tensor_bytes
from bayesprune.files import path_of, write_together
from bayesprune.rows.call import Call
from bayesprune.rows.example import example_call
from bayesprune.structure.altered import check_no_global_hooks, drop_gradient_hooks_
from bayesprune.structure.copying import Foreign, copy_of
from bayesprune.structure.graph import as_plain_graph
from bayesprune.structure.plain import PlainGraph
from bayesprune.structure.running import check_plain
from bayesprune.structure.weight_posterior import WeightPosterior

DEVIATIONS = "deviations.safetensors"
"""The file of a saved network that holds the standard deviations of its weights, where they were kept."""


def save(network: nn.Module | WeightPosterior, folder: str | Path, example: Any) -> None:
    """Write a network as `pruned.safetensors` and `architecture.json`.

    A sequence of plain layers is written as its layers. Any other network is written as the operations that
    it runs, in training and in evaluation, over tensors of its own names. Both files are written to the side,
    read back and compared, every tensor and the outputs on the example, bit by bit; only then do they replace
    what was there.

    Args:
        network: what `bayesprune.prune` returns, or any other that PyTorch can trace; left alone. Of
            ``prune(…, posterior=True)`` the standard deviations go into a third file,
            `deviations.safetensors`.
        folder: where the two files go; made as needed. A network already there is replaced.
        example: (rows, ...), a batch that the network accepts, in any form that ``bp.gate`` takes: it is run
            on it, and names, shapes and types are noted, for whoever loads it.

    Raises:
        DataError: an example that is none.
        UnsupportedNetworkError: it cannot be copied or traced, does not accept the example, or runs an
            operation that cannot be written down; or what was written, read back, computes something else.
        CheckpointError: what was written, read back, has other tensors.
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
    deviations: Mapping[str, Tensor] | None = None
    if isinstance(network, WeightPosterior):
        deviations, network = network.deviations, network.network
    check_plain(network, "save")
    check_no_global_hooks("save")
    folder = path_of(folder, "save: the folder")
    inputs = example_call(network, example).to("cpu")
    with torch.random.fork_rng(devices=[]):  # tracing runs the network, which may draw
        written, runs = (network, network) if is_sequence(network) else _graph(network, inputs)
    if isinstance(written, PlainGraph):
        inside = inside_data(runs)
        body = {**graph_data(written, inputs.tensors), "sizes": sizes_of(runs)}
        body |= {"inside": inside} if inside else {}
        tensors = graph_tensors(written)
    else:
        body, tensors = sequence_data(written), sequence_tensors(written)
    description: dict[str, Any] = {
        "format": FORMAT,
        "format_version": body.pop("format_version"),
        "input_shape": list(inputs.tensors[0].shape[1:]),
        "tensors": TENSORS,
        "tensors_sha256": "",
        **body,
    }
    content = tensor_bytes(tensors, digest_of(description))
    description["tensors_sha256"] = digest(content)

    def check(aside: dict[Path, Path]) -> None:
        try:
            again, said = _read(aside[folder / ARCHITECTURE], aside[folder / TENSORS])
            inside_from_data(again, said.get("inside", []), folder / ARCHITECTURE)
        except CheckpointError as problem:
            raise CheckpointError(f"{folder}: what was written cannot be read back. {problem}") from problem
        check_same_tensors({**held(written), **held(network)}, held(again), str(folder))
        check_same_outputs(runs, again, inputs, str(folder))
        if deviations is not None:
            found = _read_deviations(aside[folder / DEVIATIONS], said["tensors_sha256"], again)
            check_same_tensors({n: t.cpu() for n, t in deviations.items()}, found, str(folder))

    # the architecture last: it names the tensors it belongs to, so a crash in between is noticed
    files = {folder / TENSORS: content, folder / ARCHITECTURE: architecture_bytes(description)}
    if deviations is not None:
        files = {folder / DEVIATIONS: tensor_bytes(deviations, description["tensors_sha256"]), **files}
    write_together(files, check)
    if deviations is None:  # those of a network that was there before
        (folder / DEVIATIONS).unlink(missing_ok=True)


@overload
def load(
    folder: str | Path, into: nn.Module | None = None, *, posterior: Literal[False] = False
) -> nn.Module: ...


@overload
def load(
    folder: str | Path, into: nn.Module | None = None, *, posterior: Literal[True]
) -> WeightPosterior: ...


def load(
    folder: str | Path, into: nn.Module | None = None, *, posterior: bool = False
) -> nn.Module | WeightPosterior:
    """Rebuild a saved network: plain PyTorch, on the CPU, in eval mode; outputs equal bit for bit.

    Args:
        folder: where `save` wrote.
        into: an instance of the network's own class, as it was before pruning. Its parameters become the
            saved ones, whatever their sizes, its layers' size attributes follow, and modules that ran as
            graphs inside of it do so again. By default the network comes back as plain layers, or as a module
            of the same parameter names that runs its operations.

        posterior: with the standard deviations of its weights, which must have been saved with it.

    Returns:
        The network; ``into`` itself where that is given. With ``posterior``, a ``WeightPosterior`` of it.

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
    read_architecture(folder)  # whether there is one
    network, description = _read(folder / ARCHITECTURE, folder / TENSORS)
    if into is not None:
        inside = inside_from_data(network, description.get("inside", []), folder / ARCHITECTURE)
        put_into_(into, network, description.get("sizes", sizes_of(network)), folder, inside)
    loaded = network if into is None else into
    if not posterior:
        return loaded
    return WeightPosterior(
        loaded, _read_deviations(folder / DEVIATIONS, description["tensors_sha256"], loaded)
    )


def _read_deviations(path: Path, tensors_sha256: str, network: nn.Module) -> dict[str, Tensor]:
    """Standard deviations of a network's weights, which must be its own."""
    try:
        content = path.read_bytes()
        found = tensors_from_bytes(content)
        of = architecture_of(content)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: there is no such file: the network was saved without a posterior of its weights. Save "
            "bp.prune(result, posterior=True), or load without posterior=."
        ) from None
    except Exception as problem:  # the format's own errors have no common base
        raise CheckpointError(f"{path}: is truncated or corrupt ({problem}). Save it again.") from problem
    parameters = dict(network.named_parameters())
    wrong = [
        name
        for name, value in found.items()
        if name not in parameters
        or value.shape != parameters[name].shape
        or not bool((value.isfinite() & (value >= 0)).all())
    ]
    if of != tensors_sha256 or wrong:
        raise CheckpointError(
            f"{path}: does not belong to {TENSORS} beside it{f' ({wrong[0]})' if wrong else ''}. Save the "
            "network again with its posterior."
        )
    return found


def _read(architecture: Path, tensors: Path) -> tuple[nn.Module, dict[str, Any]]:
    """A network from its two files, in eval mode, and its description."""
    description = read_description(architecture)
    values = read_tensors(tensors, description["tensors_sha256"], digest_of(description), architecture.name)
    build = graph_from_data if description["format_version"] == GRAPH_VERSION else sequence_from_data
    return build(description, values, architecture).eval(), description


def _graph(network: nn.Module, inputs: Call) -> tuple[PlainGraph, nn.Module]:
    """A network as its operations, and a copy of it, both on the CPU."""
    twin = drop_gradient_hooks_(copy_of(network).cpu())
    written = as_plain_graph(twin, inputs)
    with Foreign(network) as original:
        outputs_of(twin, inputs)
    original.check()
    return written, twin
