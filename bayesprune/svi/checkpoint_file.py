"""The file of a checkpoint: tensors and plain values under one checksum, in safetensors; no pickle."""

from __future__ import annotations

import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from bayesprune.errors import CheckpointError
from bayesprune.svi.moves import Decision, Move
from bayesprune.svi.result import Epoch

FORMAT = 4
"""2 held feed-forward networks under the names of a row of layers; 3 had Adam's moments by number."""
PLAIN, CHECKSUM = "bayesprune", "sha256"
REMEDY = "Delete the file to go on from the checkpoint before it, or start again in another folder."

HOLDS: dict[str, Any] = {
    "format": int, "run": str, "settings": dict[str, Any], "step": int, "prior_weight": float,
    "decided": bool, "decided_at": int | None, "averaged": int, "rounded": int, "seconds": float,
    "seen": list[float], "groups": list[dict[str, Any]], "kept": dict[str, dict[str, Any]],
    "epochs": list[dict[str, Any]], "scheduler": dict[str, Any] | None, "scaler": dict[str, Any] | None,
    "decision": dict[str, Any] | None,
}  # fmt: skip
"""The plain values of a checkpoint, and of what type each is."""


def pack(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> bytes:
    """The content of a checkpoint's file.

    Args:
        tensors: name → tensor, on the CPU and contiguous.
        plain: what JSON can hold; floats come back to the last bit.
    """
    text = json.dumps(plain)
    metadata = {PLAIN: text, CHECKSUM: _checksum(tensors, text)}
    return safetensors.torch.save(dict(tensors), metadata=metadata)


def unpack(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``pack`` made.

    Args:
        path: the file.

    Returns:
        Tensors, and plain values, each of its type.

    Raises:
        CheckpointError: the file is missing, truncated, not a checkpoint, of another version, or differs by
            as little as one bit from what was written.
    """
    try:
        content = path.read_bytes()
        tensors = safetensors.torch.load(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        plain = json.loads(metadata[PLAIN])
        written_with = plain["format"]
    except Exception as problem:  # the format's own errors have no common base
        raise CheckpointError(
            f"{path} cannot be read: truncated or not a checkpoint ({problem}). {REMEDY}"
        ) from problem
    if written_with != FORMAT:
        raise CheckpointError(
            f"{path} has format {written_with}; this version reads {FORMAT}. Go on with the version of "
            "bayesprune that wrote it, or start again in another folder."
        )
    if metadata.get(CHECKSUM) != _checksum(tensors, metadata[PLAIN]):
        raise CheckpointError(f"{path} is damaged: its checksum does not hold. {REMEDY}")
    plain.setdefault("decision", None)  # earlier versions made no moves
    if isinstance(plain["decision"], dict):  # or did not ask about single units
        plain["decision"] = {"units": 0, "rows": 0, **plain["decision"]}
    wrong = _wrong(plain, HOLDS) + [
        f"epochs[{number}].{name}"
        for number, epoch in enumerate(plain["epochs"] if isinstance(plain.get("epochs"), list) else [])
        for name in _wrong(epoch, _fields(Epoch, "inclusion"))
    ]
    wrong += _wrong_decision(plain["decision"])
    if wrong:
        raise CheckpointError(f"{path} is no checkpoint: {', '.join(wrong)} missing or of no use. {REMEDY}")
    return tensors, plain


def run_of(path: Path) -> str | None:
    """The id of the training that wrote a file; None where the file cannot be read."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            return str(json.loads(file.metadata()[PLAIN])["run"])
    except Exception:  # as above; whether it can be read is asked when it is needed
        return None


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    """SHA-256 over the plain values, and every tensor's name, type, shape and bytes."""
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        if tensor.numel():
            found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _fields(kind: type[Any], without: str) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind) if field.name != without}


def _wrong_decision(value: object) -> list[str]:
    if value is None:
        return []
    moves = value.get("moves") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(moves, list):
        return ["decision"]
    rest = {name: each for name, each in value.items() if name != "moves"}
    wrong = [f"decision.{name}" for name in _wrong(rest, _fields(Decision, "moves"))]
    of_moves = [name for move in moves for name in _wrong(move, _fields(Move, ""))]
    return wrong + [f"decision.moves.{name}" for name in of_moves]


def _wrong(value: object, holds: Mapping[str, Any]) -> list[str]:
    """Keys that are missing, unknown, or of another type."""
    if not isinstance(value, dict):
        return ["everything"]
    lacking = [name for name, hint in holds.items() if name not in value or not _is(value[name], hint)]
    return lacking + [str(name) for name in value if name not in holds]


def _is(value: object, hint: Any) -> bool:
    """Whether a value of JSON is of a type; whole numbers are floats too, and truth values no numbers."""
    outer, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if outer in (types.UnionType, typing.Union):
        return any(_is(value, part) for part in inner)
    if outer is dict:
        return isinstance(value, dict) and all(_is(part, inner[1]) for part in value.values())
    if outer in (list, tuple):
        return isinstance(value, list) and all(_is(part, inner[0]) for part in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return type(value) is int and value >= 0
    return isinstance(value, hint)
