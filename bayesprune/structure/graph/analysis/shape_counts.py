"""Multiply-accumulates that follow from shapes alone, so that the network need not be run to be counted."""

from __future__ import annotations

import operator
from typing import Any

from torch import Size, Tensor, fx, nn
from torch._ops import OpOverload
from torch.utils.flop_counter import flop_registry

from bayesprune.structure.graph.capture.recording import made_of_others
from bayesprune.structure.graph.capture.tensors import find_tensor
from bayesprune.structure.graph.rules.call import Findings, arguments
from bayesprune.structure.kernels import KERNELS
from bayesprune.structure.unaccounted import multiplies

PRODUCTS = {"mm": "self", "bmm": "self", "matmul": "self", "addmm": "mat1", "baddbmm": "batch1"}
"""Product of matrices → the name of its first factor."""

HOLDS_NONE = {"batch_norm", "layer_norm", "group_norm", "dropout", "feature_dropout", "flatten", "unflatten",
              "reshape", "chunk", "softmax", "log_softmax", "to", "contiguous", "relu6", "silu", "hardswish",
              "max_pool1d", "max_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "narrow",
              "pad", "sym_size"}  # fmt: skip
"""Operations made of others, none of which is a product that counts."""

ON_NUMBERS = {operator.getitem, operator.mul, operator.add, operator.sub, operator.floordiv}
"""What a graph computes beside PyTorch's operations: sizes, and one of several results."""


def macs_by_shapes(
    graph: fx.GraphModule, network: nn.Module, findings: Findings
) -> dict[fx.Node, int] | None:
    """Multiply-accumulates of every operation that has some.

    Args:
        graph: of one mode.
        network: whose weights it uses.
        findings: of that graph: shapes of all values.

    Returns:
        Operation → what PyTorch's counter says of it; None where a graph has operations of which shapes do
        not tell, or products with weights that no counter counts: then it must be run.
    """
    found: dict[fx.Node, int] = {}
    of_weights: dict[fx.Node, bool] = {}  # what is made of parameters and buffers → whether of a wide one
    for node in graph.graph.nodes:
        sources = node.all_input_nodes
        if node.op == "get_attr":
            of_weights[node] = _is_wide(find_tensor(network, str(node.target)))
        elif node.op == "call_function" and node.target not in ON_NUMBERS:
            count = _count(node, findings.sizes)
            if count is None or (not count and _meets_weights(node, of_weights)):
                return None
            found |= {node: count} if count else {}
        if sources and of_weights.keys() >= set(sources):
            of_weights[node] = any(of_weights[source] for source in sources)
    return found


def _meets_weights(node: fx.Node, of_weights: dict[fx.Node, bool]) -> bool:
    """Whether an operation may multiply something by a weight."""
    known = [of_weights.get(source) for source in node.all_input_nodes]
    return any(known) and None in known and multiplies(node.target)


def _is_wide(tensor: Tensor | None) -> bool:
    """Whether a tensor is a weight that products with it would count for: scales and shifts are none."""
    return isinstance(tensor, nn.Parameter) and sum(length > 1 for length in tensor.shape) > 1


def _count(node: fx.Node, sizes: dict[fx.Node, Size]) -> int | None:
    """What one operation counts; None where that does not follow from its shapes."""
    if not isinstance(node.target, OpOverload) or node.target.namespace != "aten":
        return None
    kind = node.target._schema.name.removeprefix("aten::").rstrip("_")
    given: dict[str, Any] = arguments(node)
    if kind == "linear":
        return sizes[node].numel() * sizes[given["weight"]][-1]
    if kind in ("conv1d", "conv2d", "conv3d"):
        return sizes[node].numel() * sizes[given["weight"]][1:].numel()
    if kind in PRODUCTS:
        return sizes[node].numel() * sizes[given[PRODUCTS[kind]]][-1]
    if kind == "scaled_dot_product_attention":
        return (sizes[given["query"]].numel() + sizes[node].numel()) * sizes[given["key"]][-2]
    if made_of_others(node.target):
        return 0 if kind in HOLDS_NONE else None
    return None if node.target.overloadpacket in COUNTED else 0


COUNTED = {*flop_registry, *KERNELS}
"""Operations that a counter knows, other than by the shapes above."""
