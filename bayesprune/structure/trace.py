"""From a user's network to the sequence of layers that it is, or an error that says why it is not one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from bayesprune.errors import DataError, UnsupportedNetworkError
from bayesprune.rows.call import Call
from bayesprune.structure.altered import alter_outputs, is_plain
from bayesprune.structure.copying import copy_of
from bayesprune.structure.layers import ACROSS, NORMS, POINTWISE, PRODUCERS

_FUNCTIONS: dict[object, Callable[..., nn.Module]] = {
    F.relu: lambda inplace=False: nn.ReLU(), torch.relu: nn.ReLU, "relu": nn.ReLU,
    torch.tanh: nn.Tanh, F.tanh: nn.Tanh, "tanh": nn.Tanh,
    torch.sigmoid: nn.Sigmoid, F.sigmoid: nn.Sigmoid, "sigmoid": nn.Sigmoid,
    F.gelu: nn.GELU, F.elu: nn.ELU, F.selu: nn.SELU, F.silu: nn.SiLU, F.mish: nn.Mish,
    F.leaky_relu: nn.LeakyReLU, F.relu6: nn.ReLU6, F.hardtanh: nn.Hardtanh,
    F.hardswish: nn.Hardswish, F.softplus: nn.Softplus,
    F.max_pool1d: nn.MaxPool1d, F.max_pool2d: nn.MaxPool2d, F.max_pool3d: nn.MaxPool3d,
    F.avg_pool1d: nn.AvgPool1d, F.avg_pool2d: nn.AvgPool2d, F.avg_pool3d: nn.AvgPool3d,
    F.adaptive_avg_pool1d: nn.AdaptiveAvgPool1d, F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    F.adaptive_max_pool2d: nn.AdaptiveMaxPool2d,
    F.softmax: nn.Softmax, torch.softmax: nn.Softmax, "softmax": nn.Softmax,
    F.log_softmax: nn.LogSoftmax, torch.log_softmax: nn.LogSoftmax, "log_softmax": nn.LogSoftmax,
}  # fmt: skip
"""Functions and tensor methods, and the layer that each is; arguments after the first carry over."""

_RESHAPES = {torch.flatten, torch.reshape, "flatten", "view", "reshape"}


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; every module's mode as it was after."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def unmoved(network: nn.Module) -> Iterator[None]:
    """Buffers after are what they were before: of statistics, and of what counts calls in evaluation too."""
    state = [
        (module, leaf, buffer, buffer.clone())
        for module in network.modules()
        for leaf, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, leaf, buffer, value in state:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
                module._buffers[leaf] = buffer


def check_plain(network: Any, caller: str) -> None:
    """A network must be a module that runs.

    Args:
        network: what the user gave.
        caller: whom it was given to.

    Raises:
        UnsupportedNetworkError: it is something else, a gated model for one, or TorchScript.
    """
    kind = type(network).__name__
    if not isinstance(network, nn.Module):
        of_fit = " Of a fit's result that is bp.prune(result)." if hasattr(network, "gated") else ""
        raise UnsupportedNetworkError(
            f"The network is a {kind}: {caller} takes a torch.nn.Module with its parameters.{of_fit}"
        )
    if isinstance(network, torch.jit.ScriptModule):
        raise UnsupportedNetworkError(
            f"The network is TorchScript ({kind}), whose code cannot be traced: hand over the module that it "
            "was made from."
        )
    if getattr(network.forward, "__func__", None) is nn.Module.forward:
        raise UnsupportedNetworkError(
            f"The network is a {kind}, which has no forward: {caller} takes a network that runs. Of a gated "
            "model that is bp.prune(gated)."
        )


def run_on(network: nn.Module, inputs: Call) -> Any:
    """What a network returns for an example.

    Args:
        network: any module.
        inputs: (rows, ...).

    Raises:
        UnsupportedNetworkError: it does not run on them.
    """
    try:
        return inputs.on(network)
    except DataError as problem:  # a graph's, which names what is wrong
        raise UnsupportedNetworkError(str(problem)) from None
    except (RuntimeError, TypeError, ValueError, IndexError) as problem:
        reason = str(problem).partition("\n")[0].rstrip(".")
        raise UnsupportedNetworkError(
            f"The {type(network).__name__} does not accept the example ({inputs.told()}): {reason}. Give a "
            "batch like those that it is used on, such as x[:2]; several inputs as a tuple, or as a dict."
        ) from problem


def trace_layers(network: nn.Module, example: Tensor) -> OrderedDict[str, nn.Module]:
    """The layers of a feed-forward network, copied, in the order in which they run.

    Args:
        network: any module whose ``forward`` passes one tensor from layer to layer; it is left alone.
        example: (rows, ...), a batch that it accepts.

    Returns:
        name → layer; names are the module's own, with ``_`` for ``.``, or the function's.

    Raises:
        UnsupportedNetworkError: where the network branches, or an operation has no removal rule yet.
    """
    altered = alter_outputs(network)
    if altered:  # some of it is lost in the layers, some goes on working unseen
        raise _unsupported(f"{altered[0].place}", f"it has {altered[0].what}: {altered[0].action}")
    graph_module, shapes = _graph(network, example)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    modules = dict(graph_module.named_modules())
    last: fx.Node | None = None
    for node in graph_module.graph.nodes:
        if node.op == "output":
            if node.args[0] is not last:
                raise _unsupported(
                    "its output", "forward must return the last layer's tensor, and nothing else"
                )
        elif node.op == "placeholder":
            if last is not None:
                raise _unsupported(f"input {node.name!r}", "the network must take one tensor")
            last = node
        elif node in shapes:  # an operation on tensors; the others talk about shapes
            _check_chain(node, last, shapes)
            name = (
                str(node.target).replace(".", "_")
                if node.op == "call_module"
                else _free_name(node, layers, modules)
            )
            if name in layers:
                raise _unsupported(
                    f"module {node.target!r}",
                    "it is applied twice, and shared layers have no removal rule yet",
                )
            layers[name] = _layer(node, modules, shapes)
            last = node
    _check_same(network, layers, example)
    return layers


def _graph(network: nn.Module, example: Tensor) -> tuple[fx.GraphModule, dict[fx.Node, torch.Size]]:
    try:
        graph_module = fx.GraphModule(network, fx.Tracer().trace(network))
    except Exception as problem:  # whatever a user's forward does to a symbolic value
        raise _unsupported(type(network).__name__, f"its forward cannot be traced ({problem})") from problem
    recorder = _Recorder(graph_module)
    with evaluating(network):
        try:
            recorder.run(example)
        except UnsupportedNetworkError:
            raise
        except Exception as problem:
            reason = str(problem).partition("\n")[0]
            raise UnsupportedNetworkError(
                f"The network does not accept the example of shape {tuple(example.shape)} and type "
                f"{example.dtype}: {reason}. Pass a batch like the ones it will be trained on."
            ) from problem
    return graph_module, recorder.shapes


class _Recorder(fx.Interpreter):
    """Runs a graph and notes the shape of every tensor."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.shapes: dict[fx.Node, torch.Size] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.shapes[n] = value.shape
        return value


def _check_chain(node: fx.Node, last: fx.Node | None, shapes: dict[fx.Node, torch.Size]) -> None:
    inputs = [n for n in node.all_input_nodes if n in shapes]
    if inputs != [last]:
        names = ", ".join(str(n) for n in inputs) or "nothing"
        raise _unsupported(
            _place(node), f"it reads {names}, not just the layer before it: branches have no removal rule yet"
        )


def _free_name(node: fx.Node, layers: OrderedDict[str, nn.Module], modules: dict[str, nn.Module]) -> str:
    name, number = str(node.name), 1
    while name in layers or name in modules:
        name, number = f"{node.name}_{number}", number + 1
    return name


def _layer(node: fx.Node, modules: dict[str, nn.Module], shapes: dict[fx.Node, torch.Size]) -> nn.Module:
    if node.op == "call_module":
        return _module(node, modules[str(node.target)])
    before, after = shapes[node.all_input_nodes[0]], shapes[node]
    if node.target in _RESHAPES:
        if after == (before[0], before[1:].numel()):
            return nn.Flatten()
        raise _unsupported(
            _place(node),
            f"it turns {tuple(before)} into {tuple(after)}; only flattening all but the rows has a rule",
        )
    if node.target in (F.dropout, F.dropout2d):
        kind = nn.Dropout if node.target is F.dropout else nn.Dropout2d
        return kind(node.kwargs.get("p", node.args[1] if len(node.args) > 1 else 0.5))  # type: ignore[arg-type]
    if node.target in _FUNCTIONS:
        return _FUNCTIONS[node.target](
            *node.args[1:],
            **{k: v for k, v in node.kwargs.items() if k not in ("inplace", "_stacklevel", "dtype")},
        )
    raise _unsupported(_place(node), "this operation has no removal rule yet")


def _module(node: fx.Node, module: nn.Module) -> nn.Module:
    place = f"module {str(node.target)!r} ({type(module).__name__})"
    kind: type[nn.Module] = type(module)
    if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1):
        raise _unsupported(place, "only a flatten of all but the rows has a rule: nn.Flatten(1, -1)")
    if getattr(module, "groups", 1) != 1:
        raise _unsupported(place, f"groups={module.groups}: grouped convolutions have no removal rule yet")
    if kind not in PRODUCERS | NORMS | POINTWISE | ACROSS | {nn.Flatten}:
        raise _unsupported(place, "this layer has no removal rule yet")
    if not is_plain(module):
        raise _unsupported(place, "its tensors or methods are not those of its class and arguments")
    return copy_of(module)


def _check_same(network: nn.Module, layers: OrderedDict[str, nn.Module], example: Tensor) -> None:
    chain = nn.Sequential(layers)
    with evaluating(network), evaluating(chain):
        ours, theirs = chain(example), network(example)
    if (
        ours.shape != theirs.shape
        or ours.dtype != theirs.dtype
        or not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True)
    ):
        raise _unsupported(type(network).__name__, "its outputs are not those of its layers run in order")


def _place(node: fx.Node) -> str:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return f"operation {name!r} (at {node.name!r})"


def _unsupported(place: str, reason: str) -> UnsupportedNetworkError:
    return UnsupportedNetworkError(
        f"Cannot gate {place}: {reason}. Supported are feed-forward chains of Linear, Conv, BatchNorm, "
        "activations, pooling, dropout and Flatten."
    )
