"""Whether a cut graph runs: it is run on shapes alone, before anything is removed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from bayesprune.structure.graph.analysis.structure import Structure
from bayesprune.structure.graph.capture.capture import find_tensor
from bayesprune.structure.graph.surgery.adapt import CannotAdapt, tried
from bayesprune.structure.graph.surgery.cut import kept_places

WRITTEN = "a size is written down that does not follow the units"


class _Stopped(Exception):
    """An operation that fails on shapes alone.

    Args:
        node: the operation.
        known: whether its shapes are known at all without numbers.
    """

    def __init__(self, node: fx.Node, known: bool) -> None:
        super().__init__(node.name)
        self.node, self.known = node, known


def check_shapes(structure: Structure, training: bool, alive: Tensor, graph: nn.Module) -> None:
    """Run a cut graph on shapes, with those that parameters will have.

    Args:
        structure: of the whole network.
        training: which mode.
        alive: (units,), bool.
        graph: what ``adapted`` or ``tried`` gave for them; left alone.

    Raises:
        CannotAdapt: the operation that does not run, where it runs in the whole network.
    """
    stopped = _stopped(structure, alive, graph)
    if stopped is None or not stopped.known:
        return
    everything = torch.ones_like(alive)
    whole = _stopped(structure, everything, tried(structure, training, everything))
    original = {node.name: node for node in structure.captured.graphs[training].graph.nodes}
    node = stopped.node
    while node.name not in original:  # an operation that the cut has added
        node = next(iter(node.users))
    if whole is None or whole.node.name != stopped.node.name:
        raise CannotAdapt(original[node.name], WRITTEN)


def _stopped(structure: Structure, alive: Tensor, graph: nn.Module) -> _Stopped | None:
    example = (x.to("meta") for x in structure.captured.example)
    try:
        with torch.no_grad():
            _OnShapes(structure, alive, graph).run(*example)
    except _Stopped as stopped:
        return stopped
    return None


class _OnShapes(fx.Interpreter):
    """Runs a graph on tensors without numbers."""

    def __init__(self, structure: Structure, alive: Tensor, graph: nn.Module) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.network = structure.captured.network
        self.kept: dict[int, list[tuple[int, int]]] = {}
        for name, dim, stays in kept_places(structure, torch.ones_like(alive), alive):
            tensor = find_tensor(self.network, name)
            self.kept.setdefault(id(tensor), []).append((dim, int(stays.sum())))

    def run_node(self, n: fx.Node) -> Any:
        try:
            return super().run_node(n)
        except NotImplementedError as problem:  # no form for shapes alone
            raise _Stopped(n, known=False) from problem
        except (RuntimeError, IndexError, ValueError, TypeError) as problem:
            raise _Stopped(n, known=True) from problem

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A parameter as it will be."""
        tensor = find_tensor(self.network, str(target))
        if tensor is None:
            tensor = find_tensor(self.module, str(target))
        if tensor is None:
            return super().get_attr(target, args, kwargs)
        shape = list(tensor.shape)
        for dim, size in self.kept.get(id(tensor), ()):
            shape[dim] = size
        return torch.empty(shape, dtype=tensor.dtype, device="meta")

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Without checks of types, and with everything that is made in the same place."""
        if "_assert" in str(target):
            return None
        if target is torch.ops.aten.batch_norm.default:  # takes long: it is taken apart in Python
            return _same_channels(*args[:5])
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": torch.device("meta")}
        elif hasattr(target, "_schema") and any(a.name == "device" for a in target._schema.arguments):
            makes = not any(isinstance(a, Tensor) for a in args)
            kwargs = {**kwargs, "device": torch.device("meta")} if makes else kwargs
        return super().call_function(target, args, kwargs)


def _same_channels(x: Tensor, *of_channels: Tensor | None) -> Tensor:
    """What batch normalisation returns, where its parameters fit."""
    for tensor in of_channels:
        if tensor is not None and len(tensor) != x.shape[1]:
            raise RuntimeError(f"{len(tensor)} numbers for {x.shape[1]} channels")
    return torch.empty_like(x)
