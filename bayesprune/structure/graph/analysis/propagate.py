"""A graph run on numbers and, beside them, on labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx

from bayesprune.structure.graph.analysis.born import Born
from bayesprune.structure.graph.capture.capture import Captured, find_tensor
from bayesprune.structure.graph.capture.lent import check_writes
from bayesprune.structure.graph.rules import (  # noqa: F401 (importing registers the rules)
    einsum,
    gated_formulas,
    linear,
    norms,
    products,
    recurrent,
    reductions,
    routed,
    scattered,
    shape,
)
from bayesprune.structure.graph.rules.call import (
    RULES,
    Call,
    Findings,
    Raw,
    is_fixed,
    operation,
    schema_names,
)
from bayesprune.structure.graph.rules.pointwise import pointwise


class Reader(fx.Interpreter):
    """Runs a graph on numbers and on labels side by side.

    Args:
        graph: of one mode.
        captured: the network that it was captured from.
        findings: where everything that is found is written down.
        born: where inputs, and features behind a flatten, are units; None where they are none.
    """

    def __init__(
        self, graph: fx.GraphModule, captured: Captured, findings: Findings, born: Born | None = None
    ) -> None:
        super().__init__(graph)
        self.born = born
        self.network, self.lent = captured.network, set(captured.lent)
        self.findings = findings
        self.behind: dict[fx.Node, str] = {}
        findings.learnt = frozenset(n for n, _ in captured.network.named_parameters(remove_duplicate=False))
        findings.example_rows = len(captured.example[0])

    def run_node(self, n: fx.Node) -> Any:
        """Run an operation, then say what is known of its result."""
        values = fx.node.map_arg((n.args, n.kwargs), lambda m: self.env[m])
        if self.lent:
            check_writes(n.target, *values, self.lent)
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.findings.sizes[n] = result.shape
            self._note_precision(result)
        if not isinstance(result, Tensor) or not (result.is_floating_point() or result.is_complex()):
            self.findings.constants[n] = result
        labels = self._labels(n, values, result)
        self.findings.of[n] = labels if self.born is None else self.born.features(n, result, labels)
        return result

    def _note_precision(self, result: Tensor) -> None:
        coarsest = torch.finfo(self.findings.coarsest).eps
        if result.is_floating_point() and torch.finfo(result.dtype).eps > coarsest:
            self.findings.coarsest = result.dtype

    def _labels(self, node: fx.Node, values: Any, result: Any) -> Any:
        if node.op == "get_attr":
            tensor = find_tensor(self.network, str(node.target))
            if tensor is not None:
                return Raw(
                    str(node.target), tensor.shape, tuple((str(node.target), d) for d in range(tensor.ndim))
                )
            return (
                torch.zeros((), dtype=torch.long).expand(result.shape) if isinstance(result, Tensor) else None
            )
        if node.op == "placeholder" and self.born is not None:
            return self.born.inputs(node, result)
        if node.op == "placeholder":
            return torch.zeros((), dtype=torch.long).expand(result.shape)
        if node.op == "output":
            for known in labels_in(self.known(node.args)):
                self.findings.labels.freeze(known, "output", "it is what the network returns")
            return None
        return self._call(node, values, result)

    def _call(self, node: fx.Node, values: Any, result: Any) -> Any:
        if not hasattr(node.target, "_schema"):  # arithmetic on sizes, or one of several results
            if getattr(node.target, "__name__", "") == "getitem":
                self.behind[node] = self.behind.get(node.args[0], "")  # type: ignore[arg-type]
                source = self.known(node.args[0])
                return source[int(str(node.args[1]))] if isinstance(source, list | tuple) else None
            return None
        if not isinstance(result, Tensor | list | tuple):
            return None  # a size, or a check
        names = schema_names(node)
        args = dict(zip(names, values[0], strict=False)) | values[1]
        known = dict(zip(names, self.known(node.args), strict=False)) | self.known(node.kwargs)
        self._check_alias(node, known)
        call = Call(node, args, known, result, self.findings, self.place(node, known))
        kind = operation(call)
        if all(not isinstance(k, Raw) and is_fixed(k) for _, k, _ in call.tensors()):
            return call.fixed()
        if kind in RULES:
            function, parameters = RULES[kind]
            return function(call.activations(parameters))
        if torch.Tag.pointwise in node.target.tags or kind in POINTWISE:  # type: ignore[union-attr]
            return pointwise(call)
        if kind.endswith("_like"):
            return shape.keep(call)
        return call.frozen_everything(f"{kind} has no rule yet")

    def _check_alias(self, node: fx.Node, known: dict[str, Any]) -> None:
        """What is changed in place through a view stays: the value that it is a view of changes too."""
        if not node.target._schema.is_mutable or not node.args or not isinstance(node.args[0], fx.Node):  # type: ignore[union-attr]
            return
        source = node.args[0]
        chain = []
        while _shares_memory(source):
            source = source.args[0]  # type: ignore[assignment]
            chain.append(source)
        if all(len(value.users) == 1 for value in chain):
            return  # nobody else sees the change
        for value in chain:
            reason = "it is changed in place through a view"
            for labels in labels_in([known, self.findings.of[value]]):
                self.findings.labels.freeze(labels, self.place(node, known), reason)

    def known(self, arguments: Any) -> Any:
        """Labels of arguments, in the arguments' structure."""
        return _known(arguments, self.findings.of)

    def place(self, node: fx.Node, known: dict[str, Any]) -> str:
        """How a message names an operation: by the parameter that it reads, else by the graph's name."""
        names = [k.name for k in known.values() if isinstance(k, Raw)]
        kind = str(node.target).removeprefix("aten.").partition(".")[0]
        layer = names[0].rpartition(".")[0] or names[0] if names else ""
        before = next((self.behind[n] for n in node.all_input_nodes if self.behind.get(n)), "")
        self.behind[node] = layer or before
        if layer:
            return f"{layer} ({kind})"
        return f"{node.name} ({kind})" + (f" behind {before}" if before else "")


def _shares_memory(node: fx.Node) -> bool:
    """Whether a value may lie in the memory of the operation's first argument."""
    if node.op != "call_function" or not hasattr(node.target, "_schema") or not node.args:
        return False
    kind = str(node.target).removeprefix("aten.").partition(".")[0]
    return isinstance(node.args[0], fx.Node) and (kind in VIEWS or node.target._schema.is_mutable)


VIEWS = {"view", "permute", "transpose", "t", "select", "slice", "narrow", "squeeze", "unsqueeze", "expand",
         "unflatten", "flatten", "reshape", "split", "chunk", "unbind", "detach", "alias"}  # fmt: skip
"""Operations whose results may share memory with what they read."""

POINTWISE = {"aten.fill", "aten.masked_fill", "aten.where", "aten.lerp", "aten.addcmul", "aten.addcdiv",
             "aten.bernoulli", "aten.copy", "aten.relu6", "aten.hardtanh", "aten.rrelu", "aten.silu",
             "aten.mish", "aten.softplus", "aten.celu", "aten.selu", "aten.elu", "aten.clamp",
             "aten.rsub", "aten.hardswish", "aten.hardsigmoid", "aten.gelu", "aten.leaky_relu",
             "aten.threshold", "aten.log_sigmoid", "aten.erf", "aten.nan_to_num"}  # fmt: skip
"""Pointwise operations that carry no tag."""


def _known(arguments: Any, of: dict[fx.Node, Any]) -> Any:
    if isinstance(arguments, fx.Node):
        return of[arguments]
    if isinstance(arguments, list | tuple):
        return [_known(part, of) for part in arguments]
    if isinstance(arguments, dict):
        return {name: _known(part, of) for name, part in arguments.items()}
    return None


def labels_in(known: Any) -> Iterable[Tensor]:
    """Every tensor of labels in what is known of a value; parameters have none."""
    if isinstance(known, Tensor):
        yield known
    elif isinstance(known, list | tuple):
        for part in known:
            yield from labels_in(part)
    elif isinstance(known, dict):
        yield from labels_in(list(known.values()))
