"""A graph over a network's own parameters: how it runs, and whether it does what another one does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from bayesprune.errors import DataError
from bayesprune.structure.graph.capture.capture import Inputs, find_tensor, set_tensor
from bayesprune.structure.graph.capture.late_graph import LateGraph
from bayesprune.structure.graph.capture.masks import masks_as_given
from bayesprune.structure.graph.capture.tensors import largest
from bayesprune.structure.running import drawing_alike


def adopt_(module: nn.Module, network: nn.Module) -> None:
    """Hold a network's parts under the network's own names, and the network itself beside them."""
    for name, parameter in network._parameters.items():
        module.register_parameter(name, parameter)
    for name, buffer in network._buffers.items():
        module.register_buffer(name, buffer, persistent=name not in network._non_persistent_buffers_set)
    for name, child in network._modules.items():
        module.add_module(name, child)
    object.__setattr__(module, "network", network)
    module.training = network.training


def graph_forward(graph: fx.GraphModule, module: nn.Module, *inputs: Any, **more: Any) -> Any:
    """Run a graph with the parameters that a module has at this moment, whoever put them there."""
    if isinstance(graph, LateGraph):
        graph._write_code()
    return type(graph).forward(_Bound(graph, module), *inputs, **more)


class _Bound:
    """What a graph's code sees as ``self``: a module, and beside it what only the graph has."""

    def __init__(self, graph: fx.GraphModule, module: nn.Module) -> None:
        self.__dict__ = {**graph._modules, **module._modules}  # found without asking
        self._graph, self._module = graph, module

    def __getattr__(self, name: str) -> Any:
        module = self._module
        if name in module._parameters or name in module._modules or name in module._buffers:
            return getattr(module, name)
        return getattr(self._graph, name)


class CompiledGraph:
    """A graph that ``torch.compile`` runs.

    Args:
        graph: over a network's own parameters.
        options: of ``torch.compile``.
    """

    def __init__(self, graph: fx.GraphModule, options: dict[str, Any]) -> None:
        if isinstance(graph, LateGraph):
            graph._write_code()
        self._graph, self._forward = graph, torch.compile(graph, **options)
        self._read = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}

    def run(self, module: nn.Module, *inputs: Any, **more: Any) -> Any:
        """Run it; None where the module has other tensors now than the graph, lent for a while by somebody.

        Args:
            module: that has the network's parameters.
            inputs: of the graph.
            more: by name.
        """
        for name in self._read:
            there = find_tensor(module, name)
            if there is not None and there is not find_tensor(self._graph, name):
                return None
        return self._forward(*inputs, **more)


def share(graph: fx.GraphModule, network: nn.Module) -> None:
    """Let a graph compute with a network's own parameters and buffers."""
    for node in graph.graph.nodes:
        tensor = find_tensor(network, str(node.target)) if node.op == "get_attr" else None
        if tensor is not None:
            set_tensor(graph, str(node.target), tensor)


CERTAIN = 1e-6
"""By how much of their size outputs in float32 may differ and be taken for equal, unseen in float64."""


def alike(
    first: list[Tensor], second: list[Tensor], coarsest: torch.dtype = torch.float64, ulps: float = 0.0
) -> bool:
    """Whether two lists of outputs are equal up to rounding in their type, or in a coarser one on the way.

    Args:
        first: outputs.
        second: outputs that they ought to be.
        coarsest: type in which some of it was computed.
        ulps: at least so many units in the last place of the largest number may differ: where sums are taken
            in another order, bfloat16 is seldom nearer than one.
    """
    if len(first) != len(second):
        return False
    for a, b in zip(first, second, strict=True):
        eps = max(torch.finfo(a.dtype).eps, torch.finfo(coarsest).eps)
        tolerance = max(ulps * eps, 1e-3 if eps > 1e-4 else 1e-4 if eps > 1e-8 else 1e-8)
        if a.shape != b.shape or not torch.allclose(
            a, b, rtol=0, atol=tolerance * max(largest(b), 1.0), equal_nan=True
        ):
            return False
    return True


def same(network: nn.Module, graph: fx.GraphModule, training: bool, example: Inputs) -> bool:
    """Whether a network of its own classes does what its graph does; random numbers and statistics apart.

    What is neither equal nor different for certain in float32 is asked again in float64, where it runs so.
    """
    found = _both(network, graph, training, example)
    if found is None or not alike(*found):
        return False
    if are_certain(*found):
        return True
    with in_double(network, graph):
        twice = _both(network, graph, training, tuple(double(x) for x in example))
    return twice is None or alike(*twice)


def are_certain(first: list[Tensor], second: list[Tensor]) -> bool:
    """Whether outputs that are alike are so for certain: nearer than rounding alone, or of float64."""
    if any(x.dtype == torch.float64 for x in second):
        return True
    return all(
        torch.allclose(a, b, rtol=0, atol=CERTAIN * max(largest(b), 1.0), equal_nan=True)
        for a, b in zip(first, second, strict=True)
    )


def double(x: Tensor) -> Tensor:
    """Numbers in float64; whole ones and truths as they are."""
    return x.double() if x.dtype in (torch.float32, torch.float16, torch.bfloat16) else x


@contextmanager
def in_double(*modules: nn.Module) -> Iterator[None]:
    """Inside, parameters and buffers are of float64."""
    tensors = {id(t): t for m in modules for t in (*m.parameters(), *m.buffers())}.values()
    before = [tensor.data for tensor in tensors]
    for tensor in tensors:
        tensor.data = double(tensor.data)
    try:
        yield
    finally:
        for tensor, data in zip(tensors, before, strict=True):
            tensor.data = data


def _both(
    network: nn.Module, graph: fx.GraphModule, training: bool, example: Inputs
) -> tuple[list[Tensor], list[Tensor]] | None:
    """What both return; None where one fails."""
    mode = network.training
    state = {name: tensor.clone() for name, tensor in network.named_buffers()}
    results = []
    try:
        for module in (network, graph):
            network.train(training)
            with torch.no_grad(), drawing_alike(), masks_as_given():
                results.append(tree_leaves(module(*(x.clone() for x in example))))
            for name, tensor in network.named_buffers():
                tensor.copy_(state[name])
    except (RuntimeError, AssertionError, ValueError, IndexError, TypeError, DataError):
        for name, tensor in network.named_buffers():
            tensor.copy_(state[name])
        return None
    finally:
        network.train(mode)
    own, expected = ([leaf for leaf in leaves if isinstance(leaf, Tensor)] for leaves in results)
    return own, expected
