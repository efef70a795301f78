"""Modules that run as graphs inside of a network's class, as data: for who loads it into an instance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from bayesprune.errors import CheckpointError
from bayesprune.structure.plain import (
    PlainGraph,
    bare,
    graphs_inside,
    place_of,
    program_data,
    program_from_data,
    tensor_names,
)
from bayesprune.structure.plain.program import MODES


def inside_data(network: nn.Module) -> list[dict[str, Any]]:
    """What the modules of a network run that are graphs while it is of its own class.

    Args:
        network: of any class.

    Returns:
        For each its name, its class, why it is a graph, and what it runs. Its tensors are the network's,
        under the names that they have there. One whose results cannot be written down is left out.
    """
    found = []
    for name, why in graphs_inside(network).items():
        part = network.get_submodule(name)
        assert isinstance(part, PlainGraph), name
        program = part._bayesprune_program
        try:
            found.append({"name": name, "network": program.kind, "why": why, **program_data(program)})
        except ValueError:  # the class cannot be loaded into then, which says so; the operations can
            continue
    return found


def inside_from_data(saved: nn.Module, data: Any, path: Path) -> dict[str, PlainGraph]:
    """These modules from plain data.

    Args:
        saved: the network as its operations, which has their tensors.
        data: as `inside_data` gives it.
        path: of the architecture's file, for messages.

    Returns:
        Name → the module, over the tensors of ``saved``.

    Raises:
        CheckpointError: the data are something else.
    """
    try:
        if not isinstance(data, list):
            raise ValueError(f"{data!r} are no modules")
        return {entry["name"]: _graph(saved, entry) for entry in data}
    except Exception as problem:  # whatever PyTorch raises on what is no graph
        kind = "" if isinstance(problem, ValueError) else f"{type(problem).__name__}: "
        raise CheckpointError(
            f"{path}: cannot rebuild the modules that run as graphs: {kind}{problem}. The file was changed, "
            "or written by a newer bayesprune; export the network again."
        ) from None


def _graph(saved: nn.Module, entry: Mapping[str, Any]) -> PlainGraph:
    name, kind, why = (entry[key] for key in ("name", "network", "why"))
    if not all(isinstance(text, str) for text in (name, kind, why)) or not name:
        raise ValueError(f"{name!r} of class {kind!r} is no module with a name")
    part = saved.get_submodule(name)
    if not part.state_dict():
        raise ValueError(f"there is no module {name!r} with tensors")
    data = {mode: entry.get(mode) for mode in MODES} | {"call": entry.get("call")}
    program = program_from_data(data, kind, tensor_names(part), place_of(part))
    return PlainGraph(bare(part, kind), program.graphs, program.outputs, program.form, why)
