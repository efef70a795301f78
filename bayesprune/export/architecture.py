"""The file that says what a saved network is: its versions, what it takes, and how it is read and written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayesprune.errors import CheckpointError
from bayesprune.files import read_json
from bayesprune.rows.call import Call, CallForm
from bayesprune.rows.nested import Leaf
from bayesprune.structure.plain.program import form_from_data
from bayesprune.structure.plain.values import CONSTANTS

ARCHITECTURE = "architecture.json"
"""The file of a saved network that says what runs."""
FORMAT = "bayesprune architecture"
LAYERS_VERSION = 3
GRAPH_VERSION = 4

ENTRIES: dict[int, dict[str, type]] = {
    LAYERS_VERSION: {"input_shape": list, "tensors_sha256": str, "layers": list},
    GRAPH_VERSION: {
        "input_shape": list, "inputs": list, "tensors_sha256": str, "network": str, "modules": list,
        "values": list, "sizes": dict, "training": dict, "evaluation": dict,
    },
}  # fmt: skip
"""Version → what a file of it holds: a sequence of layers, or a graph of operations."""


def read_architecture(folder: str | Path) -> dict[str, Any]:
    """Read and check `architecture.json`.

    Args:
        folder: where `save` wrote.

    Returns:
        Its content; `input_shape` is the shape of one row of the (first) input.

    Raises:
        CheckpointError: the file is missing, truncated or of another version.
    """
    path = Path(folder) / ARCHITECTURE
    if not path.is_file():
        raise CheckpointError(f"{folder}: holds no {ARCHITECTURE}, so no exported network. Check the folder.")
    return read_description(path)


def read_description(path: Path) -> dict[str, Any]:
    """Read and check a file that says what a saved network is, whatever it is called.

    Args:
        path: the file.

    Raises:
        CheckpointError: it is truncated or of another version.
    """
    description = read_json(path, CheckpointError)
    version = description.get("format_version")
    if description.get("format") != FORMAT or type(version) is not int or version not in ENTRIES:
        raise CheckpointError(
            f"{path}: is format {description.get('format')!r}, version {version!r}; this bayesprune reads "
            f"{FORMAT!r}, versions {', '.join(map(str, ENTRIES))}. Use the version of bayesprune that wrote "
            "it."
        )
    missing = [key for key, kind in ENTRIES[version].items() if not isinstance(description.get(key), kind)]
    if missing:
        raise CheckpointError(
            f"{path}: lacks {', '.join(missing)}. The file was changed; export the network again."
        )
    return description


def digest_of(description: dict[str, Any]) -> str:
    """SHA-256 of a description, however it is laid out in its file.

    The file of the tensors holds it, as the description holds that file's: neither can be changed alone, so
    that no slip of an editor or a disk makes another network of it. It is a checksum, and no signature: who
    changes a network on purpose can write both anew. (A network is therefore not run when it is loaded: an
    accident is found without, and what was made on purpose can behave well on one example.)

    Args:
        description: content of the file; the tensors' digest is left out.

    Returns:
        64 hexadecimal digits.
    """
    said = {key: value for key, value in description.items() if key != "tensors_sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def architecture_bytes(description: dict[str, Any]) -> bytes:
    """The content of the file, one line for every layer, tensor and operation.

    Args:
        description: what JSON can hold.
    """
    entries = (f"  {json.dumps(key)}: {_lines(value, 1)}" for key, value in description.items())
    return ("{\n" + ",\n".join(entries) + "\n}\n").encode()


def _lines(value: Any, depth: int) -> str:
    space, last = "  " * (depth + 1), "  " * depth
    if isinstance(value, dict) and any(isinstance(part, list | dict) for part in value.values()):
        parts = (f"{space}{json.dumps(key)}: {_lines(part, depth + 1)}" for key, part in value.items())
        return "{\n" + ",\n".join(parts) + f"\n{last}}}"
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        return "[\n" + ",\n".join(space + json.dumps(p, allow_nan=False) for p in value) + f"\n{last}]"
    return json.dumps(value, allow_nan=False)


def input_data(inputs: tuple[Tensor, ...], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """What a network takes, as plain data.

    Args:
        inputs: (rows, ...) each.
        names: what each is called.

    Returns:
        For each its name, the shape of a row, the type, and the largest value where those are whole numbers.
    """
    found = []
    for name, x in zip(names, inputs, strict=False):
        dtype = str(x.dtype).removeprefix("torch.")
        entry: dict[str, Any] = {"name": name, "shape": list(x.shape[1:]), "dtype": dtype}
        if not x.is_floating_point() and not x.is_complex() and x.numel():
            entry["largest"] = int(x.max())
        found.append(entry)
    return found


def example_of(folder: str | Path, rows: int = 1, dtype: torch.dtype = torch.float32) -> Call:
    """A call that a saved network accepts.

    Args:
        folder: where `save` wrote.
        rows: of the batch.
        dtype: of numbers, where the file does not say (version 1).

    Returns:
        Inputs (rows, ...): random numbers between 0 and 1, and whole ones up to the largest seen.

    Raises:
        CheckpointError: the file is missing, truncated, of another version, or says no shapes.
    """
    description = read_architecture(folder)
    told = description.get("inputs", [{"shape": description["input_shape"], "dtype": None}])
    generator = torch.Generator().manual_seed(0)
    try:
        tensors = tuple(_example(entry, rows, dtype, generator) for entry in told)
        told = description.get("call", told)
        return Call(tensors, _form(description, len(tensors)))
    except (KeyError, TypeError, ValueError, RuntimeError) as problem:
        raise CheckpointError(
            f"{Path(folder) / ARCHITECTURE}: describes inputs {told!r} that cannot be made "
            f"({type(problem).__name__}: {problem}). The file was changed; export the network again."
        ) from None


def _form(description: dict[str, Any], count: int) -> CallForm:
    """How the network is called: as the file says, or with one tensor after the other."""
    if description.get("call") is not None:
        return form_from_data(description["call"], count)
    return CallForm(tuple(map(Leaf, range(count))), {})


def _example(entry: Any, rows: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    dtype = dtype if entry["dtype"] is None else CONSTANTS["dtype"][entry["dtype"]]
    if dtype.is_floating_point or dtype.is_complex:
        return torch.rand(rows, *entry["shape"], generator=generator, dtype=torch.float32).to(dtype)
    top = int(entry.get("largest", 0)) + 1
    return torch.randint(top, (rows, *entry["shape"]), generator=generator).to(dtype)
