"""A graph of one mode, for any number of rows, or an error that names the line that cannot be traced."""

from __future__ import annotations

import contextlib
import inspect
import io
import operator
import traceback
import warnings
from collections.abc import Callable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from bayesprune.errors import UnsupportedNetworkError
from bayesprune.structure.altered import hint
from bayesprune.structure.graph.capture.averages import shares_of_one, write_averages_
from bayesprune.structure.graph.capture.called import Calls, calls_of_trace
from bayesprune.structure.graph.capture.experts import experts_routed
from bayesprune.structure.graph.capture.late_graph import LateGraph
from bayesprune.structure.graph.capture.masks import masks_as_given
from bayesprune.structure.graph.capture.observed import observed
from bayesprune.structure.graph.capture.recording import Inputs, NotRecorded, recorded
from bayesprune.structure.graph.capture.regions import inline_
from bayesprune.structure.graph.capture.roots import symbols_kept, write_powers_
from bayesprune.structure.graph.capture.tensors import find_tensor
from bayesprune.structure.graph.capture.twins import rows_of, twins


def _lift_constants_(module: fx.GraphModule, network: nn.Module) -> None:
    """Tensors that tracing made get names of their own, beside the network's parts."""
    for node in module.graph.nodes:
        if node.op == "get_attr" and find_tensor(network, str(node.target)) is None:
            owner, _, last = str(node.target).rpartition(".")
            value = getattr(module.get_submodule(owner), last)
            if isinstance(value, Tensor):
                node.target = "bp_constant_" + str(node.target).replace(".", "_")
                module.register_buffer(node.target, value.detach().clone(), persistent=False)


Free = frozenset[tuple[int, int]]
"""Dimensions of inputs whose sizes are left open, as (which tensor, which dimension)."""


Before = tuple[fx.GraphModule, Any, Calls]
"""What is known of another mode."""


def traced(
    network: nn.Module,
    inputs: Inputs,
    free: Free = frozenset(),
    before: Before | None = None,
) -> tuple[fx.GraphModule, Any, dict[str, str], Calls]:
    """Trace a network in the mode that it is in.

    Args:
        network: its buffers are afterwards what they were.
        inputs: two rows of each.
        free: dimensions whose sizes become symbols, as far as PyTorch can; the number of rows always does.
        before: what was traced of another mode, how its outputs hang together, and what its modules ran.

    Returns:
        The graph for any number of rows; how its outputs hang together; name of a dropout → its module; and
        what each module ran.

    Raises:
        UnsupportedNetworkError: PyTorch cannot trace it; the line is named.
    """
    with experts_routed(network), shares_of_one(network) as means:
        try:
            module, outputs, calls = (
                _exported(network, inputs, free) if free else _recorded(network, inputs, before)
            )
        except NotRecorded:
            module, outputs, calls = _exported(network, inputs, free)
    write_averages_(module, network, means)
    module.graph.eliminate_dead_code()  # a weight that is looked at for its size is not read
    module.recompile()
    rates = _rates(module, network)
    for node in module.graph.nodes:
        node.meta = {}  # shapes and stack traces of the tracing: as much memory as a small network
    if not isinstance(module, LateGraph):
        with experts_routed(network):
            calls = observed(calls, module, network, inputs)
    return module, outputs, rates, calls


MORE = 5
"""Rows of the second run that is recorded: halves and smaller numbers of rows do not grow from two to five as
multiples do."""


def _recorded(
    network: nn.Module, inputs: Inputs, before: Before | None = None
) -> tuple[fx.GraphModule, Any, Calls]:
    """What the network does at two numbers of rows, if that is one graph.

    Where it does what it did in the other mode, where the rows are is known.
    """
    state = {name: tensor.clone() for name, tensor in network.named_buffers()}
    index = torch.arange(MORE) % len(inputs[0])
    try:
        with warnings.catch_warnings(), masks_as_given():
            warnings.simplefilter("ignore")
            module, outputs, calls = _quietly(lambda: recorded(network, inputs))
            if before is not None and outputs == before[1] and _free_as_(module, before[0], len(inputs[0])):
                return module, outputs, calls.agreeing(before[2])
            more = tuple(x[index.to(x.device)] for x in inputs)
            other, others, other_calls = _quietly(lambda: recorded(network, more))
    finally:
        for name, tensor in network.named_buffers():
            tensor.copy_(state[name])
    if outputs != others:
        raise NotRecorded
    try:
        _free_rows_(module, other, len(inputs[0]), MORE)
    except UnsupportedNetworkError as problem:
        raise NotRecorded from problem
    return module, outputs, calls.agreeing(other_calls)


def _free_as_(module: fx.GraphModule, freed: fx.GraphModule, rows: int) -> bool:
    """Free a graph's rows where those of another mode's are free, if that is its twin; whether it is."""
    if not isinstance(freed, LateGraph):  # an exported one: there nothing was said of how rows grow
        return False
    module.graph.eliminate_dead_code()
    pairs = twins(freed, module, rows)
    if pairs is None:
        return False
    last = [node for node in module.graph.nodes if node.op == "placeholder"][-1]
    for node in [n for n in freed.graph.nodes if rows_of(n) is not None]:
        with module.graph.inserting_after(last):
            last = pairs.of[node] = module.graph.node_copy(node, pairs.of.__getitem__)
    for node, twin in pairs.of.items():
        if rows_of(node) is None:
            twin.args = _with_rows(node.args, twin.args, pairs.of)
            twin.kwargs = _with_rows(node.kwargs, twin.kwargs, pairs.of)
    return True


def _with_rows(freed: Any, own: Any, twin: Mapping[fx.Node, fx.Node]) -> Any:
    """A node's own arguments with multiples of the rows where its twin has some."""
    if isinstance(freed, fx.Node):
        return twin[freed]
    if isinstance(freed, list | tuple):
        return type(own)(_with_rows(a, b, twin) for a, b in zip(freed, own, strict=True))
    if isinstance(freed, dict):
        return {name: _with_rows(value, own[name], twin) for name, value in freed.items()}
    return own


def _exported(network: nn.Module, inputs: Inputs, free: Free) -> tuple[fx.GraphModule, Any, Calls]:
    """What PyTorch traces with symbols for the sizes."""
    module, outputs = _export(network, inputs, free)
    calls = calls_of_trace(module.graph)
    _check_sizes(module)
    if _knows_rows(module):
        more = tuple(torch.cat([x, x[:1]]) for x in inputs)
        other, _ = _export(network, more, free)
        _free_rows_(module, other, len(inputs[0]), len(more[0]))
    return module, outputs, calls


def _check_sizes(module: fx.GraphModule) -> None:
    """No size depends on the values of the inputs."""
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols  # takes long to import

    for node in module.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor) and free_unbacked_symbols(value):
            raise UnsupportedNetworkError(
                f"Cannot trace the network: the size of {node.name!r} depends on the values of the inputs"
                f"{_line_of(node)}. Write masks as products (x * mask) where they stand for x[mask]; experts "
                "that are given the rows that chose them (torch.where, index_add_) can be given all rows, "
                "and weigh nothing where they were not chosen; or, with their weights in one tensor, be "
                "bp.structure.routed_linear."
            )


def _rates(module: fx.GraphModule, network: nn.Module) -> dict[str, str]:
    """Name of a dropout → the module that its rate is read from.

    Numbers that ``forward`` hands to functions itself are left out, those of attention for one.
    """
    layers, found = dict(network.named_modules()), {}
    for node in module.graph.nodes:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        if node.op == "call_function" and "dropout" in str(node.target) and stack:
            layer = layers.get(str(stack[-1][0]))
            if isinstance(layer, _DropoutNd) and node.args[1:2] == (layer.p,):
                found[node.name] = str(stack[-1][0])
    return found


def _knows_rows(module: fx.GraphModule) -> bool:
    """Whether the number of rows has become a constant: ``len(x)`` does that, ``x.shape[0]`` does not."""
    values = [node.meta.get("val") for node in module.graph.nodes if node.op == "placeholder"]
    return any(isinstance(v, Tensor) and str(v.shape[0]).isdigit() for v in values)


def _free_rows_(module: fx.GraphModule, other: fx.GraphModule, rows: int, more: int) -> None:
    """Numbers that grow with the rows become what they are: a multiple of the first input's rows."""
    nodes, others = list(module.graph.nodes), list(other.graph.nodes)
    for node, twin in zip_longest(nodes, others):
        if node is None or twin is None or node.op != twin.op or str(node.target) != str(twin.target):
            raise UnsupportedNetworkError(
                f"Cannot trace the network: how many operations it runs depends on the number of rows"
                f"{_line_of(node or twin)}. Loops over rows must leave forward; write x.shape[0] for len(x)."
            )
    first = next(n for n in nodes if n.op == "placeholder")
    last = [n for n in nodes if n.op == "placeholder"][-1]
    at = {node: number for number, node in enumerate(nodes)}
    at_other = {node: number for number, node in enumerate(others)}
    made: dict[int, fx.Node] = {}

    def multiple(times: int) -> fx.Node:
        """So many times the rows: one node for each multiple."""
        if times not in made:
            rows_node = multiple(1) if times != 1 else None
            with module.graph.inserting_after(rows_node or last):
                made[times] = (
                    module.graph.call_function(operator.mul, (rows_node, times))
                    if rows_node
                    else module.graph.call_function(torch.ops.aten.sym_size.int, (first, 0))
                )
        return made[times]

    def freed(node: fx.Node, ours: Any, theirs: Any) -> Any:
        if isinstance(ours, fx.Node) and isinstance(theirs, fx.Node) and at[ours] == at_other[theirs]:
            return ours
        if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple) and len(ours) == len(theirs):
            return type(ours)(freed(node, a, b) for a, b in zip(ours, theirs, strict=True))
        if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
            return {key: freed(node, value, theirs[key]) for key, value in ours.items()}
        if type(ours) is type(theirs) and not isinstance(ours, fx.Node) and ours == theirs:
            return ours
        if type(ours) is not int or ours % rows or theirs != ours // rows * more:
            raise UnsupportedNetworkError(
                f"Cannot trace the network: the number {ours} in {node.name} depends on the rows in a way "
                "that could not be made out. Use x.shape[0] for len(x)."
            )
        return multiple(ours // rows)

    for node, twin in zip(nodes, others, strict=True):
        if node.op in ("call_function", "output"):
            node.args = freed(node, tuple(node.args), tuple(twin.args))
            node.kwargs = freed(node, dict(node.kwargs), dict(twin.kwargs))
        elif node.op == "get_attr" and not _same_constant(module, other, str(node.target)):
            raise UnsupportedNetworkError(
                f"Cannot trace the network: the constant {node.name} depends on the number of rows. Compute "
                "it from x.shape[0] by operations."
            )
    module.graph.lint()
    module.recompile()


def _same_constant(module: fx.GraphModule, other: fx.GraphModule, name: str) -> bool:
    """Whether what both graphs hold under a name is one tensor, or equal ones."""
    ours, theirs = find_tensor(module, name), find_tensor(other, name)
    return ours is theirs or (ours is not None and theirs is not None and torch.equal(ours, theirs))


MOST_IN_A_SIZE = 100
"""Operations in the formula of a size, above which a trace with symbols is given up: each block that pads an
image to whole windows, and cuts off again, puts the formula of the one before into its own three times over;
PyTorch simplifies it at every condition, and a network of twelve such blocks took more than ten minutes."""


def _export(network: nn.Module, inputs: Inputs, free: Free) -> tuple[fx.GraphModule, Any]:
    state = {name: tensor.clone() for name, tensor in network.named_buffers()}
    symbols = [
        {dim: torch.export.Dim.AUTO for dim in range(x.ndim) if not dim or (number, dim) in free}
        for number, x in enumerate(inputs)
    ]
    sizes = tuple(inspect.signature(network.forward).bind(*symbols).arguments.values())  # *xs is one of them
    try:
        with warnings.catch_warnings(), masks_as_given(), symbols_kept(network), _ShortSizes():
            warnings.simplefilter("ignore")
            program = _quietly(lambda: torch.export.export(network, inputs, dynamic_shapes=sizes))
            module: fx.GraphModule = program.module()
    except Exception as problem:  # whatever the user's forward does to a traced value
        mode = "training" if network.training else "evaluation"
        _check_packed(network, mode, problem)
        raise UnsupportedNetworkError(
            f"Cannot trace {type(network).__name__} in {mode}: {_reason(problem)}{place_in_code(problem)}. "
            "Operations that depend on the values of tensors (if x.sum() > 0, .item(), .numpy()) must leave "
            f"forward, and sizes must come from shapes.{hint(network)}"
        ) from problem
    for name, tensor in network.named_buffers():
        tensor.copy_(state[name])
    for node in list(module.graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            module.graph.erase_node(node)
    inline_(module)
    write_powers_(module.graph)
    _lift_constants_(module, network)
    module.graph.set_codegen(fx.graph.CodeGen())
    module.recompile()
    return module, program.call_spec.out_spec


class _ShortSizes(TorchFunctionMode):
    """Ends a trace whose sizes have become formulas that take longer to simplify than the network to run."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do it, then look at the sizes of what came out."""
        result = func(*args, **(kwargs or {}))
        values = result if isinstance(result, tuple | list) else (result,)
        for value in values:
            for size in value.shape if isinstance(value, Tensor) else ():
                if isinstance(size, torch.SymInt) and size.node.expr.count_ops() > MOST_IN_A_SIZE:
                    raise UnsupportedNetworkError("its sizes are formulas of too many operations")
        return result


def _check_packed(network: nn.Module, mode: str, problem: Exception) -> None:
    """Whether it is a packed sequence that cannot be traced: how many steps it has, lengths say."""
    frames = [frame for frame, _ in traceback.walk_tb(problem.__traceback__)]
    packs = any(frame.f_code.co_filename.endswith(PACKING) for frame in frames)
    if packs or any(frame.f_locals.get("batch_sizes") is not None for frame in frames):
        raise UnsupportedNetworkError(
            f"Cannot trace {type(network).__name__} in {mode}: it packs sequences{place_in_code(problem)}, "
            "whose sizes depend on the lengths' values. Run the recurrence on the padded rows, zero what is "
            "padded (y * mask) and read its last step at lengths - 1: in one direction that is the same. The "
            "other one is a recurrence over rows turned round within their lengths, "
            "x.gather(1, (lengths[:, None] - 1 - steps).clamp(min=0)[..., None].expand_as(x))."
        ) from problem


PACKING = str(Path("torch", "nn", "utils", "rnn.py"))


def _quietly(action: Callable[[], Any]) -> Any:
    """Run without PyTorch's lines about what it tried, and without what ``forward`` prints meanwhile."""
    import logging

    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return action()
    finally:
        logger.setLevel(level)


def _reason(problem: Exception) -> str:
    """The first line that says something."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(problem).__name__


def place_in_code(problem: BaseException) -> str:
    """`` (file, line, code)`` of the user's code that raised a problem; nothing if none of it did."""
    library, torch_itself = Path(__file__).parents[2], Path(torch.__file__).parent
    frames = [
        frame
        for frame in traceback.extract_tb(problem.__traceback__)
        if Path(frame.filename).is_file()
        and not {library, torch_itself} & set(Path(frame.filename).parents)
        and frame.line
    ]
    if not frames:
        return ""
    last = frames[-1]
    return f" (at {Path(last.filename).name}, line {last.lineno}: {last.line})"


def _line_of(node: fx.Node) -> str:
    """`` (line)`` of the user's code that an operation stands in, where it is known."""
    trace = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines() if line.strip()]
    places = [i for i, line in enumerate(trace) if line.startswith("File ") and "site-packages" not in line]
    return f" ({trace[places[-1]]}: {''.join(trace[places[-1] + 1 : places[-1] + 2])})" if places else ""
