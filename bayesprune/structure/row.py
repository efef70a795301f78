"""Rows: networks that are plain layers run one after the other, which come back as such."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from bayesprune.structure.altered import alter_outputs, is_plain
from bayesprune.structure.copying import copy_of
from bayesprune.structure.layers import ACROSS, NORMS, POINTWISE, POOLS, PRODUCERS
from bayesprune.structure.running import evaluating
from bayesprune.structure.select import selection

INPUT = "input"
"""Name of the group whose units are a network's inputs."""

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


@dataclass(frozen=True)
class Row:
    """Plain layers, each of which reads the one before it.

    Attributes:
        layers: name → the dotted name of the network's module, or a layer in a function's place; names are
            the module's own, with ``_`` for ``.``, or the function's.
        flattens: names of the layers that spread every unit over several columns, in order.
        reads_inputs: the first layer, in front of which inputs are selected; a flatten that comes before any
            layer with numbers of its own, behind which they are.
    """

    layers: tuple[tuple[str, str | nn.Module], ...]
    flattens: tuple[str, ...]
    reads_inputs: str

    def sequential(self, network: nn.Module, selected: Mapping[str, tuple[int, Tensor]]) -> nn.Sequential:
        """The layers as they are now, as plain PyTorch.

        Args:
            network: whose modules they are, under the names that they had.
            selected: group of inputs, or of features behind a flatten → (columns that there are, positions of
                those that are read); what is not named is read whole.
        """
        behind = {name for name, layer in self.layers if isinstance(self._module(network, layer), nn.Flatten)}
        built: OrderedDict[str, nn.Module] = OrderedDict()
        for name, layer in self.layers:
            chosen = {
                f"{group}_select": selection(*what)
                for group, what in selected.items()
                if name == (self.reads_inputs if group == INPUT else group)
            }
            module = self._module(network, layer)
            if not isinstance(layer, str):
                module = copy_of(module).train(network.training)
            built.update({name: module, **chosen} if name in behind else {**chosen, name: module})
        row = nn.Sequential(built)
        row.training = network.training  # layers are in their own modes
        return row

    @staticmethod
    def _module(network: nn.Module, layer: str | nn.Module) -> nn.Module:
        return network.get_submodule(layer) if isinstance(layer, str) else layer


def find_row(network: nn.Module, example: Tensor, outputs: Any = None) -> Row | None:
    """The layers of a network that is nothing but some in a row; else None.

    Args:
        network: any module; it is left alone.
        example: (rows, ...), a batch that it accepts.
        outputs: what it returns for that in evaluation, where that is known.

    Returns:
        The row, if all that ``forward`` does is to hand one tensor from one plain layer to the next, with
        units along dimension 1.
    """
    if alter_outputs(network):  # some of it is lost in the layers, some goes on working unseen
        return None
    try:
        with evaluating(network), torch.random.fork_rng(devices=[]), redirect_stdout(io.StringIO()):
            graph = fx.GraphModule(network, fx.Tracer().trace(network))
            recorder = _Recorder(graph)
            traced = recorder.run(example.clone())
    except Exception:  # whatever a user's forward does to a symbolic value: then it is no row
        return None
    layers = _layers(network, graph.graph, recorder)
    row = None if layers is None else _row(network, layers, recorder.shapes)
    if row is None:
        return None
    if outputs is None:
        with evaluating(network), torch.random.fork_rng(devices=[]):
            outputs = network(example.clone())
    return row if _alike(traced, outputs) else None


def may_be_row(graph: fx.Graph) -> bool:
    """Whether a network may be a row, as its operations tell at once.

    Args:
        graph: of the network's operations, as captured.

    Returns:
        False where a value that a layer with numbers of its own reads is read elsewhere too.
    """
    for node in graph.nodes:
        users = [user for user in node.users if not str(user.target).startswith("aten.sym_size")]
        layers = [user for user in users if str(user.target).startswith(_LAYERS) and user.args[0] is node]
        if len(users) > 1 and layers:
            return False
    return True


_LAYERS = ("aten.linear", "aten.conv", "aten.batch_norm", "aten.layer_norm")


class _Recorder(fx.Interpreter):
    """Runs a graph, notes the shape of every tensor, and the layers that do what its functions do."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.shapes: dict[fx.Node, torch.Size] = {}
        self.functions: dict[fx.Node, nn.Module] = {}

    def run_node(self, n: fx.Node) -> Any:
        sources = [source for source in n.all_input_nodes if source in self.shapes]
        alone = n.op in ("call_function", "call_method") and len(sources) == 1
        read = self.env[sources[0]].clone() if alone else None  # it may be written into
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.shapes[n] = value.shape
            layer = _function(n, self.shapes) if alone else None
            if layer is not None and _alike(layer.eval()(read), value):
                self.functions[n] = layer
        return value


def _alike(ours: Any, theirs: Any) -> bool:
    """Whether both are one tensor, up to rounding."""
    if not (isinstance(ours, Tensor) and isinstance(theirs, Tensor)):
        return False
    same = ours.shape == theirs.shape and ours.dtype == theirs.dtype
    return same and torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True)


def _layers(
    network: nn.Module, graph: fx.Graph, recorder: _Recorder
) -> dict[str, tuple[str | nn.Module, fx.Node]] | None:
    """Name → layer and what it reads, of a graph in which every tensor is made of the one before it."""
    layers: dict[str, tuple[str | nn.Module, fx.Node]] = {}
    shapes = recorder.shapes
    taken = {name for name, _ in network.named_modules()}
    last: fx.Node | None = None
    for node in graph.nodes:
        if node.op == "output":
            return layers if node.args[0] is last else None
        if node.op == "placeholder":
            if last is not None:
                return None
            last = node
        elif node in shapes:  # an operation on tensors; the others talk about shapes
            layer: str | nn.Module | None
            if last is None or [n for n in node.all_input_nodes if n in shapes] != [last]:
                return None
            if node.op == "call_module":
                name, layer = str(node.target).replace(".", "_"), str(node.target)
            else:
                name, layer = _free_name(str(node.name), {*layers, *taken}), recorder.functions.get(node)
            if layer is None or name in layers:
                return None
            layers[name], last = (layer, last), node
    return None


def _free_name(base: str, taken: set[str]) -> str:
    name, number = base, 1
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    return name


def _function(node: fx.Node, shapes: Mapping[fx.Node, torch.Size]) -> nn.Module | None:
    """The layer that a function is; None where there is none."""
    before, after = shapes[node.all_input_nodes[0]], shapes[node]
    if node.target in _RESHAPES:
        return nn.Flatten() if after == (before[0], before[1:].numel()) else None
    if node.target in (F.dropout, F.dropout2d):
        kind = nn.Dropout if node.target is F.dropout else nn.Dropout2d
        return kind(node.kwargs.get("p", node.args[1] if len(node.args) > 1 else 0.5))  # type: ignore[arg-type]
    if node.target in _FUNCTIONS:
        kwargs = {k: v for k, v in node.kwargs.items() if k not in ("inplace", "_stacklevel", "dtype")}
        return _FUNCTIONS[node.target](*node.args[1:], **kwargs)
    return None


def _row(
    network: nn.Module,
    layers: dict[str, tuple[str | nn.Module, fx.Node]],
    shapes: Mapping[fx.Node, torch.Size],
) -> Row | None:
    """The row of these layers, if each of them treats units one by one, or reads all and makes others."""
    modules = {n: network.get_submodule(m) if isinstance(m, str) else m for n, (m, _) in layers.items()}
    weights = [name for name, module in modules.items() if type(module) in PRODUCERS]
    if not weights or not all(map(_is_plain_layer, modules.values())):
        return None
    flattens, reads_inputs, numbered, behind = [], next(iter(modules)), False, False
    for name, module in modules.items():
        size = shapes[layers[name][1]]
        if not behind and not _along_units(module, size):
            return None
        flat = isinstance(module, nn.Flatten)
        if flat and numbered and not behind and size[2:].numel() > 1:
            flattens.append(name)
        if flat and not numbered:
            reads_inputs = name
        numbered = numbered or flat or type(module) in PRODUCERS | NORMS
        behind = behind or name == weights[-1]
    return Row(tuple((name, layer) for name, (layer, _) in layers.items()), tuple(flattens), reads_inputs)


def _is_plain_layer(module: nn.Module) -> bool:
    """Whether a layer is one of those that a row may hold, as its class and arguments say."""
    known = type(module) in PRODUCERS | NORMS | POINTWISE | ACROSS | {nn.Flatten}
    whole = not isinstance(module, nn.Flatten) or (module.start_dim, module.end_dim) == (1, -1)
    return known and whole and getattr(module, "groups", 1) == 1 and is_plain(module)


def _along_units(module: nn.Module, size: torch.Size) -> bool:
    """Whether a layer in front of the last one with weights has its units along dimension 1."""
    if isinstance(module, nn.Linear):
        return len(size) == 2
    if type(module) in POOLS:
        return len(size) == POOLS[type(module)] + 2
    if type(module) in PRODUCERS:
        return len(size) == module.weight.ndim
    return type(module) not in ACROSS
