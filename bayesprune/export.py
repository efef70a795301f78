"""Export: a pruned network as two files that reload without pickle, or as ONNX.

A folder holds `pruned.safetensors`, the tensors, and `architecture.json`, the layers in order: class and
constructor arguments, from a fixed list of classes. Nothing in either file is ever executed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import secrets
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

from bayesprune.errors import CheckpointError, SettingsError, UnsupportedNetworkError
from bayesprune.files import read_json, write_atomically, write_json
from bayesprune.structure.layers import ACROSS, NORMS, POINTWISE, PRODUCERS, Select

TENSORS = "pruned.safetensors"
ARCHITECTURE = "architecture.json"
FORMAT = "bayesprune architecture"
FORMAT_VERSION = 1

CLASSES: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (*PRODUCERS, *NORMS, *POINTWISE, *ACROSS, nn.Flatten, nn.Unflatten, Select)
}
"""The only classes that are written, and the only ones that a file can make `load` build."""

NOT_ARGUMENTS = {"self", "device", "dtype", "min_value", "max_value"}
"""Constructor parameters that say where a layer lives, or are deprecated spellings of others."""


def save(network: nn.Module, folder: str | Path, example: Tensor) -> None:
    """Write a plain sequential network as `pruned.safetensors` and `architecture.json`.

    Args:
        network: an ``nn.Sequential`` of the layers that pruning leaves, such as `bayesprune.prune` returns.
        folder: where the two files go; made as needed. A network already there is replaced.
        example: (rows, ...), a batch that the network accepts: its shape is noted, for whoever loads it.

    Raises:
        UnsupportedNetworkError: a layer of another class, or not an ``nn.Sequential``.
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
    if not isinstance(network, nn.Sequential):
        raise UnsupportedNetworkError(
            f"Cannot save a {type(network).__name__}: only an nn.Sequential can be rebuilt without running "
            "its code. "
            "Save what bayesprune.prune() returns, or keep this network's state_dict beside its class."
        )
    layers = [_describe(name, layer) for name, layer in network.named_children()]
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    tensors = tensors_to_bytes({name: value.clone() for name, value in state.items()})
    folder = Path(folder)
    write_atomically(folder / TENSORS, tensors)
    write_json(  # last: it names the tensors it belongs to, so a crash in between is noticed
        folder / ARCHITECTURE,
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "input_shape": list(example.shape[1:]),
            "tensors": TENSORS,
            "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
            "layers": layers,
        },
    )


def load(folder: str | Path) -> nn.Sequential:
    """Rebuild a saved network: plain torch.nn layers, on the CPU, in eval mode; outputs equal bit for bit.

    Args:
        folder: where `save` wrote.

    Returns:
        The network.

    Raises:
        CheckpointError: a file is missing, truncated, of another version, or the two do not belong together.
    """
    folder = Path(folder)
    description = read_architecture(folder)
    tensors = _read_tensors(folder / TENSORS, description["tensors_sha256"])
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for entry in description["layers"]:
        layer = _build(entry, folder / ARCHITECTURE)
        if isinstance(layer, Select) and f"{entry['name']}.index" in tensors:
            layer.index = tensors[f"{entry['name']}.index"]  # fewer positions than the width it selects from
        layers[entry["name"]] = layer
    network = nn.Sequential(layers)
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as problem:
        raise CheckpointError(f"{folder / TENSORS}: does not fit {ARCHITECTURE}: {problem}") from None
    return network.eval()


def read_architecture(folder: str | Path) -> dict[str, Any]:
    """Read and check `architecture.json`.

    Args:
        folder: where `save` wrote.

    Returns:
        Its content; `input_shape` is the shape of one row.

    Raises:
        CheckpointError: the file is missing, truncated or of another version.
    """
    path = Path(folder) / ARCHITECTURE
    if not path.is_file():
        raise CheckpointError(f"{folder}: holds no {ARCHITECTURE}, so no exported network. Check the folder.")
    description = read_json(path, CheckpointError)
    if description.get("format") != FORMAT or description.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: is format {description.get('format')!r}, version "
            f"{description.get('format_version')!r}; this "
            f"bayesprune reads {FORMAT!r}, version {FORMAT_VERSION}. Use the version of bayesprune that "
            "wrote it."
        )
    kinds = {"input_shape": list, "tensors_sha256": str, "layers": list}
    missing = [key for key, kind in kinds.items() if not isinstance(description.get(key), kind)]
    if missing:
        raise CheckpointError(
            f"{path}: lacks {', '.join(missing)}. The file was changed; export the network again."
        )
    return description


def export(network: nn.Module, path: str | Path, example: Tensor | None = None) -> None:
    """Write a network for use elsewhere: a path ``*.onnx`` gives ONNX, any other a folder as `save` does.

    Args:
        network: plain network, such as `bayesprune.prune` returns.
        path: file ``*.onnx`` or folder.
        example: (rows, ...), a batch that it accepts; may be left out where the first layer is linear.

    Raises:
        SettingsError: an example is needed, or the packages of the ``export`` extra are.
        UnsupportedNetworkError: a layer that cannot be exported.
    """
    example = _example_for(network) if example is None else example
    if Path(path).suffix.lower() == ".onnx":
        _export_onnx(network, Path(path), example)
    else:
        save(network, path, example)


def _example_for(network: nn.Module) -> Tensor:
    first = next((layer for layer in network.modules() if not list(layer.children())), None)
    width = getattr(first, "in_features", None)
    if not isinstance(width, int):
        raise SettingsError(
            f"Cannot tell the input's shape from a first layer {type(first).__name__}: pass a batch, "
            "example=x[:1]."
        )
    return torch.zeros(1, width)


def _export_onnx(network: nn.Module, path: Path, example: Tensor) -> None:
    absent = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if absent:
        raise SettingsError(
            f"ONNX needs {' and '.join(absent)}, not installed here. Install with: pip install "
            "'bayesprune[export]'. "
            f"Or export to a folder ({path.with_suffix('')}), which needs nothing more."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp.onnx")
    training = network.training
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own deprecations: nothing the user can act on
            torch.onnx.export(
                network.eval(), (example,), str(temporary), dynamo=True, external_data=False, verbose=False,
                input_names=["x"], output_names=["y"], dynamic_shapes=({0: torch.export.Dim("rows")},),
            )  # fmt: skip
        os.replace(temporary, path)
    finally:
        network.train(training)
        temporary.unlink(missing_ok=True)


def _describe(name: str, layer: nn.Module) -> dict[str, Any]:
    kind = type(layer)
    if CLASSES.get(kind.__name__) is not kind:
        raise UnsupportedNetworkError(
            f"Layer {name!r} ({kind.__name__}) cannot be saved: {ARCHITECTURE} knows only plain layers of "
            "torch.nn "
            f"({', '.join(sorted(CLASSES))}). Replace it, or keep the network's state_dict beside its class."
        )
    arguments = {}
    for key, default in _arguments_of(kind).items():
        value = getattr(layer, key)
        if key == "bias":
            value = value is not None or not getattr(layer, "affine", True)
        if value != default:  # what is left out reads the same in versions of torch that lack the argument
            arguments[key] = value
    return {"name": name, "class": kind.__name__, "arguments": arguments}


def _build(entry: Any, path: Path) -> nn.Module:
    try:
        name, kind, arguments = entry["name"], CLASSES[entry["class"]], entry["arguments"]
        unknown = set(arguments) - set(_arguments_of(kind))
        if unknown or "." in name:
            raise ValueError(f"unknown arguments {sorted(unknown)}" if unknown else "a name with a dot")
        with torch.device("meta"):  # no memory, and no random numbers drawn for weights that are replaced
            return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in arguments.items()})
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as problem:
        raise CheckpointError(
            f"{path}: cannot rebuild layer {entry!r} ({type(problem).__name__}: {problem}). "
            "The file was changed, or written by a newer bayesprune; export the network again."
        ) from None


def _arguments_of(kind: type[nn.Module]) -> dict[str, Any]:
    """Constructor parameters of a layer, with their defaults."""
    parameters = inspect.signature(kind.__init__).parameters.values()
    named = {p.name: p.default for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    return {name: default for name, default in named.items() if name not in NOT_ARGUMENTS}


def _read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    try:
        content = path.read_bytes()
        tensors = tensors_from_bytes(content)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file. Export the network again.") from None
    except (OSError, SafetensorError) as problem:
        raise CheckpointError(
            f"{path}: is truncated or corrupt ({problem}). Export the network again."
        ) from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CheckpointError(
            f"{path}: is not the file that {ARCHITECTURE} was written with. Export the network again."
        )
    return tensors
