"""From any network to the operations that it runs: one graph for training, one for evaluation."""

from __future__ import annotations

import contextlib
import copy
import inspect
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from bayesprune.errors import UnsupportedNetworkError
from bayesprune.structure.graph.twin import Watch, lent_copy, memory
from bayesprune.structure.trace import evaluating

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Captured:
    """A network's copy and the two graphs that say what it does.

    Attributes:
        network: a copy of the user's network; surgery happens in its parameters.
        graphs: training or not → the graph of that mode.
        outputs: training or not → how the network's outputs hang together.
        example: the inputs, two rows of them where there are more.
        lent: where the user's own parameters lie, if the copy's lie there too; else empty.
    """

    network: nn.Module
    graphs: dict[bool, fx.GraphModule]
    outputs: dict[bool, Any]
    example: Inputs
    lent: frozenset[int] = frozenset()


def capture(network: nn.Module, example: Tensor | Inputs, lent: bool = False) -> Captured:
    """Capture what a network does, in training and in evaluation.

    Args:
        network: any module whose operations do not depend on the values of its inputs; left alone.
        example: (rows, ...), a batch that it accepts, or a tuple of them, one for each input.
        lent: whether the copy may do without memory for its parameters.

    Returns:
        A copy with its two graphs.

    Raises:
        UnsupportedNetworkError: PyTorch cannot trace the network; the line is named.
        WouldWrite: running the network changes its parameters, so they cannot be lent.
    """
    inputs = tuple(x[:2] for x in (example if isinstance(example, tuple) else (example,)))
    if any(len(x) < 2 for x in inputs):  # one row would be taken for a constant
        inputs = tuple(torch.cat([x, x])[:2] for x in inputs)
    twin = lent_copy(network) if lent else copy.deepcopy(network)
    places = memory(twin) if lent else set()
    with Watch(places) if lent else contextlib.nullcontext():
        _check_runs(twin, inputs)
    modes = [(module, module.training) for module in twin.modules()]
    graphs, outputs = {}, {}
    for training in (True, False):
        twin.train(training)
        graphs[training], outputs[training] = _graph(twin, inputs)
    for module, training in modes:
        module.training = training
    return Captured(twin, graphs, outputs, inputs, frozenset(places))


def _check_runs(network: nn.Module, inputs: Inputs) -> None:
    """The network takes the example at all."""
    with evaluating(network):
        try:
            network(*(x.clone() for x in inputs))
        except Exception as problem:  # whatever the user's forward does
            shapes = " and ".join(f"{(1, *x.shape[1:])}" for x in inputs)
            reason = str(problem).partition("\n")[0]
            raise UnsupportedNetworkError(
                f"The network does not accept rows of shape {shapes}: {reason}. Pass a batch like the ones "
                "it will be trained on."
            ) from problem


def _lift_constants_(module: fx.GraphModule, network: nn.Module) -> None:
    """Tensors that tracing made get names of their own, beside the network's parts."""
    for node in module.graph.nodes:
        if node.op == "get_attr" and find_tensor(network, str(node.target)) is None:
            owner, _, last = str(node.target).rpartition(".")
            value = getattr(module.get_submodule(owner), last)
            if isinstance(value, Tensor):
                node.target = "bp_constant_" + str(node.target).replace(".", "_")
                module.register_buffer(node.target, value.detach().clone(), persistent=False)


def _graph(network: nn.Module, inputs: Inputs) -> tuple[fx.GraphModule, Any]:
    """The graph for any number of rows, and how its outputs hang together."""
    module, outputs = _export(network, inputs)
    if _knows_rows(module):
        more = tuple(torch.cat([x, x[:1]]) for x in inputs)
        other, _ = _export(network, more)
        _free_rows_(module, other, len(inputs[0]))
    for node in module.graph.nodes:
        node.meta = {}  # shapes and stack traces of the tracing: as much memory as a small network
    return module, outputs


def _knows_rows(module: fx.GraphModule) -> bool:
    """Whether the number of rows has become a constant: ``len(x)`` does that, ``x.shape[0]`` does not."""
    values = [node.meta.get("val") for node in module.graph.nodes if node.op == "placeholder"]
    return any(isinstance(v, Tensor) and str(v.shape[0]).isdigit() for v in values)


def _free_rows_(module: fx.GraphModule, other: fx.GraphModule, rows: int) -> None:
    """Numbers that grow with the rows become what they are: a multiple of the first input's rows."""
    nodes, others = list(module.graph.nodes), list(other.graph.nodes)
    if [str(n.target) for n in nodes] != [str(n.target) for n in others]:
        raise UnsupportedNetworkError(
            "Cannot trace the network: its operations depend on the number of rows. Use x.shape[0] for "
            "len(x)."
        )
    first = next(n for n in nodes if n.op == "placeholder")
    last = [n for n in nodes if n.op == "placeholder"][-1]
    with module.graph.inserting_after(last):
        size = module.graph.call_function(torch.ops.aten.sym_size.int, (first, 0))

    def freed(node: fx.Node, ours: Any, theirs: Any) -> Any:
        if isinstance(ours, list | tuple):
            return type(ours)(freed(node, a, b) for a, b in zip(ours, theirs, strict=True))
        if type(ours) is not int or ours == theirs:
            return ours
        if ours % rows or theirs != ours // rows * (rows + 1):
            raise UnsupportedNetworkError(
                f"Cannot trace the network: the number {ours} in {node.name} depends on the rows in a way "
                "that could not be made out. Use x.shape[0] for len(x)."
            )
        with module.graph.inserting_before(node):
            return module.graph.call_function(operator.mul, (size, ours // rows)) if ours != rows else size

    for node, twin in zip(nodes, others, strict=True):
        if node.op == "call_function":
            node.args = freed(node, tuple(node.args), tuple(twin.args))
            node.kwargs = {k: freed(node, v, twin.kwargs[k]) for k, v in node.kwargs.items()}
    module.graph.lint()
    module.recompile()


def _export(network: nn.Module, inputs: Inputs) -> tuple[fx.GraphModule, Any]:
    state = {name: tensor.clone() for name, tensor in network.named_buffers()}
    any_number = {0: torch.export.Dim.AUTO}
    given = inspect.signature(network.forward).bind(*inputs).arguments.values()  # *xs is one of them
    rows = tuple(tuple(any_number for _ in x) if isinstance(x, tuple) else any_number for x in given)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = _quietly(lambda: torch.export.export(network, inputs, dynamic_shapes=rows))
            module: fx.GraphModule = program.module()
    except Exception as problem:  # whatever the user's forward does to a traced value
        raise UnsupportedNetworkError(
            f"Cannot trace {type(network).__name__}: {_reason(problem).rstrip('.')}. Operations that depend "
            "on the values of tensors (if x.sum() > 0, .item()) must leave forward, and sizes must come from "
            "shapes."
        ) from problem
    for name, tensor in network.named_buffers():
        tensor.copy_(state[name])
    for node in list(module.graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            module.graph.erase_node(node)
    _lift_constants_(module, network)
    module.graph.set_codegen(fx.graph.CodeGen())
    module.recompile()
    return module, program.call_spec.out_spec


def _quietly(action: Callable[[], Any]) -> Any:
    """Run without PyTorch's log lines about what it tried before."""
    import logging

    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        return action()
    finally:
        logger.setLevel(level)


def _reason(problem: Exception) -> str:
    """The first line that says something, and the line of the user's code, if PyTorch knows it."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    places = [line for line in lines if line.startswith("File ") and "site-packages" not in line]
    first = lines[0] if lines else type(problem).__name__
    return f"{first} ({places[-1]})" if places else first


def find_tensor(module: nn.Module, name: str) -> Tensor | None:
    """A parameter or buffer by its dotted name; None where there is none."""
    owner, _, last = name.rpartition(".")
    try:
        parent = module.get_submodule(owner)
    except AttributeError:
        return None
    return parent._parameters.get(last, parent._buffers.get(last))


def set_tensor(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a parameter or buffer where a dotted name says."""
    owner, _, last = name.rpartition(".")
    parent = module.get_submodule(owner)
    for store in (parent._parameters, parent._buffers):
        store.pop(last, None)
    parent.__dict__.pop(last, None)
    if isinstance(tensor, nn.Parameter):
        parent._parameters[last] = tensor
    else:
        parent._buffers[last] = tensor
