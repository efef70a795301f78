"""A graph of what a network does when it is run: no symbols, so that it takes little more than the run.

``torch.export`` computes with symbols in place of sizes, which takes forty times as long as the network does.
Here the network runs on numbers and its operations are written down. No number decides what is written, so
that large products are not computed: what stands for them are zeros of their sizes. Sizes are numbers then:
the tracing runs it at another number of rows too, and sees which of them are the rows'. Whatever cannot be
written down this way, for certain, is left to ``torch.export``, which finds a graph for it or says why there
is none.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn, Self
from weakref import ref

import torch
from torch import Tensor, fx, nn
from torch._dispatch.python import enable_python_dispatcher, no_python_dispatcher
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from bayesprune.structure.graph.capture.called import Calling, Calls
from bayesprune.structure.graph.capture.keeping import Kept, kept_in
from bayesprune.structure.graph.capture.late_graph import LateGraph
from bayesprune.structure.graph.capture.lent import WouldWrite, check_writes, memory
from bayesprune.structure.graph.capture.unmultiplied import Products
from bayesprune.structure.plain.routed import OPERATION

aten = torch.ops.aten
Inputs = tuple[Tensor, ...]


class NotRecorded(BaseException):
    """Something that cannot be written down for certain: ``torch.export`` is to decide.

    Not an ``Exception``: no handler in anybody's ``forward`` may swallow it.
    """


def recorded(network: nn.Module, inputs: Inputs) -> tuple[fx.GraphModule, Any, Calls]:
    """Run a network in the mode that it is in, and write its operations down.

    Args:
        network: its buffers are moved as a run moves them.
        inputs: as it takes them.

    Returns:
        A graph for inputs of these sizes over the network's own tensors; how its outputs hang together; and
        what each of its modules ran.

    Raises:
        NotRecorded: it depends on values, or does something that no graph would do again.
    """
    kept, products = Kept(network), Products(computed=False)
    try:
        made = _written(network, inputs, products)
        if not (products.left_out and kept.changed()):
            return made
    except NotRecorded as problem:
        if not products.left_out or (problem.__cause__ is None and not kept.changed()):
            raise
    kept.restore_()  # or else modules would go on with zeros
    return _written(network, inputs, Products(computed=True))


def _written(network: nn.Module, inputs: Inputs, products: Products) -> tuple[fx.GraphModule, Any, Calls]:
    """Run a network, and write its operations down; numbers of large products may be left out."""
    tensors, copies = _attributes(network), tuple(x.clone() for x in inputs)
    try:
        recorder = _Recorder(network, inputs, products)
        with _watched(recorder, network, copies):
            returned = network(*copies)
    except Exception as problem:  # of a user's forward, or another PyTorch's modes: torch.export decides
        raise NotRecorded from problem
    if recorder.failed or _attributes(network) != tensors:
        raise NotRecorded
    leaves, outputs = tree_flatten(returned)
    recorder.graph.output(tuple(recorder.returned(leaf) for leaf in leaves))
    return LateGraph(recorder.holder, recorder.graph), outputs, recorder.calling.calls()


def _attributes(network: nn.Module) -> dict[tuple[int, str], tuple[int, int]]:
    """Attribute of a module → which tensor it is, and how often that was written into, buffers apart."""
    return {
        (id(module), key): (id(value), 0 if key in module._buffers else value._version)
        for module in network.modules()
        for key, value in (*module._parameters.items(), *module._buffers.items(), *vars(module).items())
        if isinstance(value, Tensor)
    }


@contextmanager
def _watched(recorder: _Recorder, network: nn.Module, inputs: Inputs) -> Iterator[None]:
    """Inside, what is run is written down; random numbers are afterwards as they were."""
    for placeholder, x in zip(recorder.placeholders, inputs, strict=True):
        recorder.note(x, placeholder)
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng())
        stack.enter_context(torch.enable_grad())  # as in training; operations are run without
        for name, layer in network.named_modules():
            if name:
                _watch(stack, layer, recorder.calling.enter, recorder.calling.leave)
            if isinstance(layer, _DropoutNd):
                _watch(
                    stack,
                    layer,
                    functools.partial(_enter, recorder, name),
                    functools.partial(_leave, recorder),
                )
        stack.enter_context(_Functions(recorder))
        stack.enter_context(enable_python_dispatcher())
        stack.enter_context(recorder)
        yield


def _watch(
    stack: ExitStack, layer: nn.Module, enter: Callable[..., None], leave: Callable[..., None]
) -> None:
    """Call one function before anybody's hooks on a layer, and another one behind them."""
    stack.callback(layer.register_forward_pre_hook(enter, prepend=True, with_kwargs=True).remove)
    stack.callback(layer.register_forward_hook(leave, with_kwargs=True).remove)


def _enter(recorder: _Recorder, name: str, layer: nn.Module, args: Any, kwargs: Any) -> None:
    recorder.inside.append((name, type(layer)))


def _leave(recorder: _Recorder, layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
    recorder.inside.pop()


class _Functions(TorchFunctionMode):
    """Sees what never comes to an operation: numbers that leave PyTorch, and what depends on gradients.

    Being there, it also keeps attention's fused evaluation away, as tracing does.
    """

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look, then do it."""
        if getattr(func, "__name__", "") in LEAVE or func in LEAVE_BY_PROPERTY:
            self.recorder.fail()
        return func(*args, **(kwargs or {}))


LEAVE = {"numpy", "__array__", "tolist", "item", "data_ptr", "storage", "untyped_storage", "__dlpack__",
         "set_", "_set_grad_enabled", "backward", "register_hook", "requires_grad_"}  # fmt: skip
"""Functions whose results no graph follows."""

LEAVE_BY_PROPERTY = {
    getattr(getattr(Tensor, name), method)
    for name in ("data", "grad", "requires_grad", "is_leaf", "grad_fn")
    for method in ("__get__", "__set__")
}
"""Attributes of the same kind."""


class _Recorder(ProxyTorchDispatchMode):
    """Writes down every operation before PyTorch takes it apart, as ``torch.export`` does.

    That place is PyTorch's own: it is held for three of its classes, of which this one is made. The rest is
    any dispatch mode's.

    Args:
        network: whose tensors get their names.
        inputs: get placeholders.
        products: how large ones are computed.
    """

    def __init__(self, network: nn.Module, inputs: Inputs, products: Products) -> None:
        self.products = products
        TorchDispatchMode.__init__(self, _dispatch_key=torch._C.DispatchKey.PreDispatch)
        self._mode_key = torch._C._TorchDispatchModeKey.PROXY
        self.graph, self.holder = fx.Graph(), nn.Module()
        self.written, self.failed = memory(network), False
        self.inside: list[tuple[str, type]] = []  # the dropouts that are being run
        self.known: dict[int, tuple[ref[Tensor], fx.Node]] = {}
        for name, tensor in (
            *network.named_parameters(remove_duplicate=False),
            *network.named_buffers(remove_duplicate=False),
        ):
            _hold(self.holder, name, tensor)
            self.note(tensor, self.graph.get_attr(name))
        self.plain = {id(t) for m in network.modules() for t in kept_in(m)} - self.known.keys()
        self.placeholders = [self.graph.placeholder(name) for name in _names(network, inputs)]
        self.calling = Calling(self.graph, self._known, {m: name for name, m in network.named_modules()})

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or else it is imported, which takes longer than any recording

    def __enter__(self) -> Self:
        TorchDispatchMode.__enter__(self)
        return self

    def __exit__(self, *problem: Any) -> None:
        TorchDispatchMode.__exit__(self, *problem)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do it, and write it down."""
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():  # in a function with a gradient of its own, or under no_grad
            self.fail()
        with no_python_dispatcher(), torch.no_grad():
            if func in ASKS:
                return func(*args, **kwargs)
            if func in LIFTED:
                return self._lifted(func(*args, **kwargs))
            if func in TRUTHS and self._settled(args[0]):
                return func(*args, **kwargs)
            self._check(func, args, kwargs)
            node = self.graph.call_function(func, *self._nodes((args, kwargs)))
            if self.inside:  # which dropout it is
                node.meta["nn_module_stack"] = {self.inside[-1][0]: self.inside[-1]}
            result = self._run(func, args, kwargs)
        self._results(node, result)
        return result

    def fail(self) -> NoReturn:
        """It cannot be written down; said twice, for a bare ``except`` may stand in between."""
        self.failed = True
        raise NotRecorded

    def note(self, tensor: Tensor, node: fx.Node) -> None:
        """A tensor is what a node computes."""
        self.known[id(tensor)] = ref(tensor), node

    def returned(self, leaf: Any) -> Any:
        """A part of what the network returns."""
        if isinstance(leaf, Tensor):
            return self._node(leaf)
        return leaf if leaf is None or isinstance(leaf, bool | int | float | str) else self.fail()

    def _check(self, func: Any, args: Any, kwargs: Any) -> None:
        """Whether a graph can have this operation, and would do the same with other values."""
        if reads_values(func, args) or any(map(torch.is_autocast_enabled, ("cpu", "cuda"))):
            self.fail()
        try:
            check_writes(func, args, kwargs, self.written)
        except WouldWrite:
            self.fail()

    def _settled(self, truth: Tensor) -> bool:
        """Whether a comparison comes out the same for every draw: none of [0, 1) is below 0, each below 1.

        So is asked where a layer is skipped by chance, and the chance is none.
        """
        node = self._node(truth)
        if node.target not in COMPARED:
            return False
        drawn, bound = node.args[0], node.args[1]
        if not isinstance(drawn, fx.Node) or not isinstance(bound, int | float):
            return False
        return drawn.target in DRAWN and (bound <= 0 or bound >= 1)

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Do it, and look into what is made of other operations, unless it is well known."""
        if func in KNOWN or not made_of_others(func):
            return self.products.run(func, args, kwargs)
        with _Inside(self):
            return func(*args, **kwargs)

    def _nodes(self, value: Any) -> Any:
        """Arguments with nodes in place of tensors."""
        if isinstance(value, Tensor):
            return self._node(value)
        if isinstance(value, list):
            return [self._nodes(part) for part in value]
        if isinstance(value, tuple):
            return tuple(self._nodes(part) for part in value)
        if isinstance(value, dict):
            return {name: self._nodes(part) for name, part in value.items()}
        return self.fail() if isinstance(value, torch.Generator) else value

    def _node(self, tensor: Tensor) -> fx.Node:
        """The node that computes a tensor; what was there before is a constant."""
        node = self._known(tensor)
        if node is not None:
            return node
        return self._constant(tensor) if id(tensor) in self.plain else self.fail()

    def _known(self, tensor: Tensor) -> fx.Node | None:
        """The node that computes a tensor, where one does."""
        held, node = self.known.get(id(tensor), (None, None))
        return node if held is not None and held() is tensor else None

    def _constant(self, tensor: Tensor) -> fx.Node:
        name = f"bp_constant_{len(self.holder._buffers)}"
        self.holder.register_buffer(name, tensor.detach().clone(), persistent=False)
        with self.graph.inserting_before(self.placeholders[0]):
            node = self.graph.get_attr(name)
        self.note(tensor, node)
        return node

    def _lifted(self, tensor: Tensor) -> Tensor:
        """A tensor written into ``forward``: a constant, which is copied, for it may be written into."""
        copied = self.graph.call_function(aten.lift_fresh_copy.default, (self._constant(tensor),))
        self.note(tensor, copied)
        return tensor

    def _results(self, node: fx.Node, result: Any) -> None:
        if isinstance(result, Tensor):
            self.note(result, node)
        elif isinstance(result, list | tuple):
            for number, part in enumerate(result):
                self._results(self.graph.call_function(operator.getitem, (node, number)), part)
        elif result is not None:
            self.fail()  # a number that depends on values


TRUTHS = {aten._local_scalar_dense.default, aten.is_nonzero.default, aten.item.default}
"""A tensor's one value, as ``if`` asks for it."""

COMPARED = {aten.lt.Scalar, aten.ge.Scalar}
"""Below a bound, or not."""

DRAWN = {aten.rand.default, aten.rand.generator, aten.rand_like.default}
"""Numbers of [0, 1)."""

ASKS = {torch.ops.prim.device.default, aten.sym_size.int, aten.sym_size.default, aten.sym_numel.default}
"""What a tensor is asked that says nothing of its values: graphs do, which run as parts of a network."""

LIFTED = {aten.lift.default, aten.lift_fresh.default}


KNOWN = {
    getattr(getattr(aten, name), overload)
    for name, overload in (
        ("linear", "default"), ("matmul", "default"), ("conv1d", "default"), ("conv2d", "default"),
        ("conv3d", "default"), ("batch_norm", "default"), ("layer_norm", "default"),
        ("group_norm", "default"),
        ("dropout", "default"), ("dropout_", "default"), ("max_pool2d", "default"), ("flatten", "using_ints"),
        ("adaptive_avg_pool2d", "default"), ("reshape", "default"), ("chunk", "default"),
        ("scaled_dot_product_attention", "default"), ("softmax", "int"), ("to", "dtype"),
        ("contiguous", "default"), ("relu6", "default"), ("silu", "default"), ("hardswish", "default"),
    )
} | {OPERATION}  # fmt: skip
"""Operations made of others that read no values, or none that shows."""


@functools.cache
def made_of_others(func: Any) -> bool:
    """Whether PyTorch takes an operation apart before anything else sees it."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


def reads_values(func: Any, args: Any) -> bool:
    """Whether an operation gives numbers, or sizes, that depend on the values of tensors."""
    if torch.Tag.data_dependent_output in func.tags:
        return True
    if torch.Tag.dynamic_output_shape not in func.tags:
        return False
    kinds = (torch.bool, torch.uint8)  # positions may be given; a mask's sum is a size
    return func is not aten.index.Tensor or any(isinstance(i, Tensor) and i.dtype in kinds for i in args[1])


class _Inside(TorchDispatchMode):
    """Looks at the operations that another one is made of."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look, then do it."""
        if reads_values(func, args):
            self.recorder.fail()
        return self.recorder.products.run(func, args, kwargs or {})


def _hold(holder: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a tensor into modules without a class, under its dotted name."""
    *path, last = name.split(".")
    for part in path:
        if part not in holder._modules:
            holder.add_module(part, nn.Module())
        holder = holder._modules[part]  # type: ignore[assignment]
    if isinstance(tensor, nn.Parameter):
        holder.register_parameter(last, tensor)
    else:
        holder.register_buffer(last, tensor)


def _names(network: nn.Module, inputs: Inputs) -> list[str]:
    """What ``forward`` calls its inputs."""
    given = inspect.signature(network.forward).bind(*inputs).arguments.items()
    names = [[key] if isinstance(v, Tensor) else [f"{key}_{i}" for i in range(len(v))] for key, v in given]
    return [name for several in names for name in several]
